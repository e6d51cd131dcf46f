#!/bin/bash
# Replaces the shallow forest and its few features; the entry points stay as they are.
set -e
cd /workspace
git apply "$(dirname "$0")/reference.patch"
python train.py
python predict.py /data/test.csv predictions.csv
