"""Scores the predictions of a person's own task by every metric of its kind."""

import json
import pathlib

import metrics
import numpy as np
from mlgym_grader import labels, read_table, reject, reward

facts = json.loads(pathlib.Path("/data/dataset.json").read_text())
form = facts["submission"]
ids, rows = labels()
table = read_table(form["columns"], ids, id_column=facts["id"]).loc[rows["id"]]
if facts["task"] == "regression":
    reward(**metrics.of_values(rows["target"].to_numpy(float), table[form["columns"][0]].to_numpy()))
outside = (table < 0) | (table > 1)
if outside.any(axis=None):
    where = table.index[outside.any(axis=1)][0]
    reject(f"a probability for the id {where} is not between 0 and 1")
predicted = table.to_numpy()
if predicted.shape[1] == 1:
    predicted = np.column_stack([1 - predicted, predicted])
elif (predicted.sum(axis=1) == 0).any():
    reject(f"all probabilities for the id {table.index[predicted.sum(axis=1) == 0][0]} are 0")
reward(**metrics.of_classes(rows["target"].to_numpy(int), predicted))
