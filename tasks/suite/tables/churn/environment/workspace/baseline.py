"""Predicts the shares of the classes for every row."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
shares = train["leaves"].value_counts(normalize=True)
submission["leaves"] = shares[1]
submission.to_csv("/workspace/submission.csv", index=False)
