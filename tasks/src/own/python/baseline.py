"""A linear model on the numbers and the frequent words, with the defaults of its library."""

import json

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

facts = json.load(open("/data/dataset.json"))
form = facts["submission"]
if facts["kind"] == "image":
    x, hidden = (np.load(f"/data/{facts[key]}").astype(float) for key in ("train_images", "test_images"))
    x, hidden = x.reshape(len(x), -1) / 255, hidden.reshape(len(hidden), -1) / 255
    train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")
    y, before = train[facts["target"]], SimpleImputer()
else:
    train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")
    train = train.drop(columns=[facts["group"]] if "group" in facts else [])
    y = train.pop(facts["target"])
    x, hidden = train.drop(columns=[facts["id"]]), test.drop(columns=[facts["id"]])
    numbers = [name for name in x.columns if pd.api.types.is_numeric_dtype(x[name])]
    words = [name for name in x.columns if name not in numbers]
    x[words], hidden[words] = x[words].astype(object).fillna("missing"), hidden[words].astype(object).fillna("missing")
    before = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore", min_frequency=20, max_categories=50, sparse_output=False), words),
    )
submission = test[[facts["id"]]].copy()
if len(x) > 100_000:
    some = np.random.default_rng(0).choice(len(x), 100_000, replace=False)
    x, y = (x[some] if isinstance(x, np.ndarray) else x.iloc[some]), y.iloc[some]
if facts["task"] == "regression":
    submission[form["columns"][0]] = make_pipeline(before, Ridge()).fit(x, y).predict(hidden)
else:
    labels = [str(label) for label in form["classes"]]
    place = y.astype(str).map({label: index for index, label in enumerate(labels)})
    model = make_pipeline(before, LogisticRegression(max_iter=1000)).fit(x, place)
    probabilities = np.zeros((len(test), len(labels)))
    probabilities[:, model.classes_] = model.predict_proba(hidden)
    submission[form["columns"]] = probabilities[:, 1:] if len(form["columns"]) == 1 else probabilities
submission.to_csv("/workspace/submission.csv", index=False)
