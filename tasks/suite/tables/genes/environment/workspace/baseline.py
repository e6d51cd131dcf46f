"""Predicts the mean for every row."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
submission["yield"] = train["yield"].mean()
submission.to_csv("/workspace/submission.csv", index=False)
