# Kills the processes of a step or of a job, whatever they did to hide: arguments are the pids to spare, with commas,
# then `step` and the names of the jobs that may live, or `job` and the name of the job that must die.
# Builtins only, because a fork bomb leaves no process to spare; stopping all before killing any starves it.
keep=$1 mode=$2
shift 2
hit() {
  local directory pid stat fields entry job state name found=1
  for directory in /proc/[0-9]*; do
    pid=${directory#/proc/}
    case $pid in 1 | $$) continue ;; esac
    [[ ,$keep, = *,$pid,* ]] && continue
    { read -r stat < "$directory/stat"; } 2>/dev/null || continue
    fields=(${stat##*) })
    state=${fields[0]}
    case $state in Z | X) continue ;; esac
    [[ $1 = STOP && $state = [Tt] ]] && continue
    environment=()
    # A process that made itself unreadable has no say: it is treated as the step's.
    { mapfile -d '' -t environment < "$directory/environ"; } 2>/dev/null || environment=()
    job=
    for entry in "${environment[@]}"; do [[ $entry == MLGYM_JOB=* ]] && job=${entry#MLGYM_JOB=}; done
    if [[ $mode = job ]]; then
      [[ $job = "$target" ]] || continue
    elif [[ -n $job ]]; then
      for name in "${living[@]}"; do [[ $job = "$name" ]] && continue 2; done
    fi
    kill "-$1" "$pid" 2>/dev/null && found=0
  done
  return $found
}
target=$1
living=("$@")
for round in {1..40}; do hit STOP || break; done
for round in {1..40}; do hit KILL || exit 0; done
exit 1
