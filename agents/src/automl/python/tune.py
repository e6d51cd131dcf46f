"""`tune.py CANDIDATE OUTPUT SEED SECONDS`: searches a candidate's parameters."""

import importlib

from automl_common import sys, tune

name, output, seed, seconds = sys.argv[1:]
candidate = importlib.import_module(f"candidate_{name}")
tune(output, candidate.make, candidate.SPACE, int(seed), float(seconds))
