"""Predicts the shares of the classes for every row."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
shares = train["cultivar"].value_counts(normalize=True)
for name in ["first", "second", "third"]:
    submission[name] = shares.get(name, 0.0)
submission.to_csv("/workspace/submission.csv", index=False)
