#!/bin/sh
# Makes ready what the tests of one backend need, on a Debian-like machine as root: `engines.sh podman|runsc|bwrap`.
# Elsewhere it says what is missing. The tests call it; what it prints last is what they need to know.
set -eu

install() {
  command -v "$2" >/dev/null 2>&1 && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "the tests of the backend $backend need $2: install the package $1" >&2
    exit 3
  fi
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends "$1"; } >&2
}

# Prints the address of a podman service, after starting one where none answers.
podman_service() {
  for socket in "${XDG_RUNTIME_DIR:-/nowhere}/podman/podman.sock" /run/podman/podman.sock; do
    if [ -S "$socket" ] && curl -sf --unix-socket "$socket" http://podman/_ping >/dev/null; then
      echo "unix://$socket"
      return
    fi
  done
  mkdir -p "$(dirname "$socket")"
  rm -f "$socket"
  # Its directory must outlive whoever starts it.
  (cd / && exec setsid nohup podman system service --time=0 "unix://$socket" >/dev/null 2>&1 </dev/null) &
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.5
    curl -sf --unix-socket "$socket" http://podman/_ping >/dev/null && break
  done
  echo "unix://$socket"
}

# Registers gVisor with the Docker engine, where it is not registered yet.
register_runsc() {
  docker info --format '{{json .Runtimes}}' | grep -q '"runsc"' && return
  if [ "$(id -u)" != 0 ] || ! command -v pidof >/dev/null; then
    echo "register the runtime runsc in /etc/docker/daemon.json and reload the engine" >&2
    exit 3
  fi
  python3 - <<'PY' >&2
import json, os
path = "/etc/docker/daemon.json"
config = json.load(open(path)) if os.path.exists(path) else {}
config.setdefault("runtimes", {})["runsc"] = {
    "path": "/usr/bin/runsc", "runtimeArgs": ["--network=none", "--platform=ptrace"],
}
os.makedirs(os.path.dirname(path), exist_ok=True)
json.dump(config, open(path, "w"), indent=2)
PY
  # The engine reads its runtimes again at this signal, and its containers run on.
  kill -HUP "$(pidof dockerd)"
  sleep 2
  docker info --format '{{json .Runtimes}}' | grep -q '"runsc"'
}

backend=$1
case $backend in
  podman) install podman podman && podman_service ;;
  runsc) install runsc runsc && register_runsc ;;
  bwrap) install bubblewrap bwrap ;;
  *) echo "there is no backend $backend" >&2 && exit 2 ;;
esac
