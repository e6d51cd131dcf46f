#!/bin/bash
# Mends what the libraries no longer have, what they silently do otherwise, and what only the author's machine had.
set -e
cd /workspace
git apply "$(dirname "$0")/reference.patch"
python -m pipewatch.train
python -m pipewatch.predict /data/test.csv predictions.csv
