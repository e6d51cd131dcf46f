"""Predicts the shares of the classes for every row."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
shares = train["species"].value_counts(normalize=True)
for name in ["setosa", "versicolor", "virginica"]:
    submission[name] = shares.get(name, 0.0)
submission.to_csv("/workspace/submission.csv", index=False)
