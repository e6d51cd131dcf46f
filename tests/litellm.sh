#!/bin/sh
# Makes ready the LiteLLM proxy that the tests of the language models' clients speak with, in a directory that is kept
# from run to run, and prints where its program is. It needs Python 3.10 or newer and a package index.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
digest=$(sha256sum "$here/litellm/requirements.txt" | cut -c1-16)
place=${TMPDIR:-/tmp}/mlgym-tests-litellm-$digest
program=$place/bin/litellm

if [ ! -e "$place/ready" ]; then
  if ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    echo "the tests of the models need python3 (3.10 or newer) with venv: install python3-venv" >&2
    exit 3
  fi
  rm -rf "$place"
  python3 -m venv "$place" >&2
  "$place/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$here/litellm/requirements.txt" >&2
  touch "$place/ready"
fi
echo "$program"
