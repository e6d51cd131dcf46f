# The first program of a bubblewrap sandbox, run as the agent's user: starts other programs for the host, which sends
# requests on standard input, each ended by NUL: a number, a line end, and bash source that becomes the program.
# The program's ends are four named pipes, which the host unlinks once they are open; on the fourth it is told who
# watches the program, and at the end its exit code.
printf '%s\n' "$BASHPID"
while IFS= read -r -d '' request; do
  number=${request%%$'\n'*} source=${request#*$'\n'}
  (
    pipes=/run/mlgym/$number
    exec <"$pipes.in" >"$pipes.out" 2>"$pipes.err" 9>"$pipes.exit" || exit
    printf '%s\n' "$BASHPID" >&9
    (
      exec 9>&-
      eval "$source"
    )
    printf '%s\n' "$?" >&9
  ) &
done
