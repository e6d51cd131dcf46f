"""`measure.py DIRECTORY`: loads a saved model as whoever deploys it would, and prints what it costs to use.

`ms_per_row` is the median over passes of predicting up to 1000 test rows at once, divided by the rows; `mb` is the size of the directory in
10^6 bytes.
"""

import pathlib
import statistics
import sys
import time

directory = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(directory))

import json

import pandas as pd
from mlgym_model import load

DATA = pathlib.Path("/data")
spec = json.loads((DATA / "dataset.json").read_text())
predictor = load(directory)
table = pd.read_csv(DATA / spec["test"])
if spec["kind"] == "tabular":
    table = table.head(1000)
passes = []
started = time.monotonic()
while len(passes) < 5 and (not passes or time.monotonic() - started < 10):
    before = time.perf_counter()
    predicted = predictor.predict(table, DATA)
    passes.append((time.perf_counter() - before) * 1000 / len(table))
size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
print(json.dumps({"ms_per_row": statistics.median(passes), "mb": size / 1e6, "rows": len(predicted)}))
