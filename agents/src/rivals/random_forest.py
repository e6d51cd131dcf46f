"""`random_forest.py SECONDS SEED CORES`: a random forest, its leaves, share of columns and depth found by random search."""

import time

started = time.monotonic()

import json
import pathlib
import sys

import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

seconds, seed, cores = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
data = pathlib.Path("/data")
spec = json.loads((data / "dataset.json").read_text())
train, test = pd.read_csv(data / spec["train"]), pd.read_csv(data / spec["test"])
target, form = train.pop(spec["target"]), spec["submission"]
x, x_test = (table.drop(columns=[spec["id"]], errors="ignore") for table in (train, test))
is_classes = spec["task"] == "classification"
words = [name for name in x.columns if not pd.api.types.is_numeric_dtype(x[name])]
few = [name for name in words if x[name].nunique() <= 10]
many = [name for name in words if name not in few]
y = target.astype(str) if is_classes else target
classes = [str(name) for name in form.get("classes", [])]


def make(parameters, trees=200):
    kind = RandomForestClassifier if is_classes else RandomForestRegressor
    coder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), few),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), many),
        remainder="passthrough",
    )
    return make_pipeline(coder, kind(trees, n_jobs=cores, random_state=seed, **parameters))


def score(model, x, y):
    """The task's metric, signed so that more is better."""
    name = spec["metric"]
    if name in ("log_loss", "roc_auc"):
        chances = model.predict_proba(x)
        if name == "log_loss":
            return -metrics.log_loss(y, chances.clip(1e-6, 1 - 1e-6), labels=model.classes_)
        binary = chances.shape[1] == 2
        return metrics.roc_auc_score(y, chances[:, 1] if binary else chances, multi_class="ovr", labels=model.classes_)
    predicted = model.predict(x)
    if name == "accuracy":
        return metrics.accuracy_score(y, predicted)
    if name == "f1":
        many = len(classes) > 2
        return metrics.f1_score(y, predicted, **({"average": "macro"} if many else {"pos_label": classes[1]}))
    if name == "mae":
        return -metrics.mean_absolute_error(y, predicted)
    return metrics.r2_score(y, predicted) if name == "r2" else -metrics.root_mean_squared_error(y, predicted)


rng = np.random.default_rng(seed)
splits = min(5, y.value_counts().min()) if is_classes else 5
if splits >= 2:
    folds = (StratifiedKFold if is_classes else KFold)(splits, shuffle=True, random_state=seed)
else:
    folds = KFold(5, shuffle=True, random_state=seed)
best, best_score, tried, longest = {}, -np.inf, 0, 0.0
while True:
    chosen = {} if tried == 0 else {
        "min_samples_leaf": int(np.exp(rng.uniform(0, np.log(30)))),
        "max_features": float(rng.uniform(0.05, 1.0)),
        "max_depth": None if rng.random() < 0.5 else int(rng.integers(4, 20)),
    }
    began = time.monotonic()
    values = [score(make(chosen).fit(x.iloc[fit], y.iloc[fit]), x.iloc[held], y.iloc[held]) for fit, held in folds.split(x, y)]
    longest, tried = max(longest, time.monotonic() - began), tried + 1
    if np.mean(values) > best_score:
        best, best_score = chosen, float(np.mean(values))
    # The last fit takes about a third of a trial's time.
    if time.monotonic() - started + 1.4 * longest > seconds:
        break
model = make(best).fit(x, y)
submission = test[[spec["id"]]].copy()
if form["prediction"] == "probability":
    table = pd.DataFrame(model.predict_proba(x_test), columns=model.classes_)
    if len(form["columns"]) == 1:
        submission[form["columns"][0]] = table[classes[1]].to_numpy()
    else:
        for column, name in zip(form["columns"], classes):
            submission[column] = table[name].to_numpy() if name in table else 0.0
else:
    submission[form["columns"][0]] = model.predict(x_test)
submission.to_csv("/workspace/submission.csv", index=False)
print(json.dumps({"parameters": best, "tried": tried, "seconds": time.monotonic() - started}))
