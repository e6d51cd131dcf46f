#!/bin/bash
set -e
cd /workspace
python "$(dirname "$0")/solve.py"
