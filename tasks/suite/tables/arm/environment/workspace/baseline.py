"""Predicts the mean for every row."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
submission["distance"] = train["distance"].mean()
submission.to_csv("/workspace/submission.csv", index=False)
