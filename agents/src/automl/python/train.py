"""`train.py CANDIDATE OUTPUT SEED DEADLINE`: cross-validates a candidate, giving up where that would take longer."""

import importlib

from automl_common import sys, train

name, output, seed, deadline = sys.argv[1:]
train(output, importlib.import_module(f"candidate_{name}").make, int(seed), float(deadline))
