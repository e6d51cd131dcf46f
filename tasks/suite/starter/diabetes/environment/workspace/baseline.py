"""Predicts the mean for everybody."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
submission["progression"] = train["progression"].mean()
submission.to_csv("/workspace/submission.csv", index=False)
