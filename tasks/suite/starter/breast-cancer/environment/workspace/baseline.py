"""Predicts the share of malignant rows for everybody."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]]
submission["malignant"] = train["malignant"].mean()
submission.to_csv("/workspace/submission.csv", index=False)
