"""`flaml.py SECONDS SEED CORES`: FLAML as its users run it: the table as it is, its own defaults, the task's metric."""

import time

started = time.monotonic()

import json
import pathlib
import sys

import pandas as pd

from flaml import AutoML

seconds, seed, cores = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data = pathlib.Path("/data")
spec = json.loads((data / "dataset.json").read_text())
train, test = pd.read_csv(data / spec["train"]), pd.read_csv(data / spec["test"])
target, form = train.pop(spec["target"]), spec["submission"]
x, x_test = (table.drop(columns=[spec["id"]], errors="ignore") for table in (train, test))
automl = AutoML()
# What was spent on loading the library is spent.
budget = seconds - (time.monotonic() - started)
automl.fit(
    X_train=x, y_train=target, task=spec["task"], metric=spec["metric"], time_budget=budget, n_jobs=cores, seed=seed,
    verbose=1,
)
submission = test[[spec["id"]]].copy()
if form["prediction"] == "probability":
    names = [str(name) for name in automl.classes_]
    table = pd.DataFrame(automl.predict_proba(x_test), columns=names)
    classes = [str(name) for name in form["classes"]]
    if len(form["columns"]) == 1:
        submission[form["columns"][0]] = table[classes[1]].to_numpy()
    else:
        for column, name in zip(form["columns"], classes):
            submission[column] = table[name].to_numpy() if name in table else 0.0
else:
    submission[form["columns"][0]] = automl.predict(x_test)
submission.to_csv("/workspace/submission.csv", index=False)
print(json.dumps({"model": automl.best_estimator, "parameters": automl.best_config, "seconds": time.monotonic() - started}))
