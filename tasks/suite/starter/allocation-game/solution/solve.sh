#!/bin/bash
set -e
cp "$(dirname "$0")/strategy.py" /workspace/strategy.py
