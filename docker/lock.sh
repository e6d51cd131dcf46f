#!/bin/sh
# Writes <image>/requirements.lock from <image>/requirements.in: every package that pip resolves for the Python
# of the base image, pinned by version and hash. Run it where /opt/venv is, with network:
#   docker run --rm --user 0 --network host -v "$PWD/docker:/docker" mlgym/base:TAG sh /docker/lock.sh prepare
set -eu
cd "$(dirname "$0")/$1"
/opt/venv/bin/python -m pip install --dry-run --ignore-installed --only-binary :all: --quiet \
  --report /tmp/report.json -r requirements.in ${2:+-c "$2"}
/opt/venv/bin/python - > requirements.lock <<'PYTHON'
import json
rows = []
for item in json.load(open("/tmp/report.json"))["install"]:
    meta, hashes = item["metadata"], item["download_info"]["archive_info"]["hashes"]
    rows.append(f"{meta['name'].lower()}=={meta['version']} --hash=sha256:{hashes['sha256']}")
print("\n".join(sorted(rows)))
PYTHON
