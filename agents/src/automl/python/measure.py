"""`measure.py DIRECTORY LIBRARY...`: loads a saved model as whoever deploys it would, and prints what it costs to use.

`ms_per_row` is the median over passes of predicting up to 1000 test rows at once, divided by the rows; `mb` is the size of the directory in
10^6 bytes; `needed LIBRARY` is 0 where a process that cannot import the library answers the same, and 1 otherwise.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

directory = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(directory))

DATA = pathlib.Path("/data")
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ImportError("not installed: " + name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {directory!r})
from mlgym_model import load
import json, pathlib
import pandas as pd
table = pd.read_pickle({rows!r})
load(pathlib.Path({directory!r})).predict(table, pathlib.Path("/data")).to_pickle({answers!r})
"""


def is_needed(library, table, predicted):
    """Whether the model cannot be loaded, fails, or answers something else where the library cannot be imported."""
    from importlib import metadata

    import numpy as np
    import pandas as pd

    owners = metadata.packages_distributions()
    wanted = library.lower().replace("_", "-")
    names = [module for module, who in owners.items() if wanted in [name.lower().replace("_", "-") for name in who]]
    rows, answers = pathlib.Path("/tmp/measured-rows.pkl"), pathlib.Path("/tmp/measured-answers.pkl")
    answers.unlink(missing_ok=True)
    table.to_pickle(rows)
    names = sorted({*names, library, library.replace("-", "_")})
    code = WITHOUT.format(names=names, directory=str(directory), rows=str(rows), answers=str(answers))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd="/tmp")
    if ran.returncode != 0 or not answers.exists():
        return True
    without = pd.read_pickle(answers)
    if list(without.columns) != list(predicted.columns) or len(without) != len(predicted):
        return True

    def differ(a, b):
        if pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b):
            return not np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)
        return not a.astype(str).equals(b.astype(str))

    return any(differ(predicted[name].reset_index(drop=True), without[name].reset_index(drop=True)) for name in predicted)


if __name__ == "__main__":
    import pandas as pd
    from mlgym_model import load

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
    facts = {"ms_per_row": statistics.median(passes), "mb": size / 1e6, "rows": len(predicted)}
    for library in sys.argv[2:]:
        facts[f"needed {library}"] = int(is_needed(library, table, predicted))
    print(json.dumps(facts))
