#!/bin/sh
# Writes <image>/requirements.lock from <image>/requirements.in: every package that pip resolves for the Python
# of the base image, pinned by version, with the hash of the wheel for each platform named in PLATFORMS besides the
# one it runs on. Run it where /opt/venv is, with network:
#   docker run --rm --user 0 --network host -v "$PWD/docker:/docker" mlgym/base:TAG sh /docker/lock.sh prepare
set -eu
cd "$(dirname "$0")/$1"
pip() {
  /opt/venv/bin/python -m pip install --dry-run --ignore-installed --only-binary :all: --quiet "$@"
}
pip --report /tmp/report-host.json -r requirements.in ${2:+-c "$2"}
/opt/venv/bin/python - > /tmp/pins <<'PYTHON'
import json
for item in json.load(open("/tmp/report-host.json"))["install"]:
    print(f"{item['metadata']['name']}=={item['metadata']['version']}")
PYTHON
for platform in ${PLATFORMS-manylinux_2_28_aarch64}; do
  pip --report "/tmp/report-$platform.json" --target /tmp/target --no-deps \
    --platform "$platform" --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 -r /tmp/pins
done
/opt/venv/bin/python - > requirements.lock <<'PYTHON'
import glob, json
wheels = {}
for path in glob.glob("/tmp/report-*.json"):
    for item in json.load(open(path))["install"]:
        name = f"{item['metadata']['name'].lower()}=={item['metadata']['version']}"
        wheels.setdefault(name, set()).add(item["download_info"]["archive_info"]["hashes"]["sha256"])
for name, hashes in sorted(wheels.items()):
    print(name, *(f"--hash=sha256:{value}" for value in sorted(hashes)))
PYTHON
