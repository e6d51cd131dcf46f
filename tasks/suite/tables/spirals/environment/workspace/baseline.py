"""Says of every row that it is of the most frequent class."""

import pandas as pd

train = pd.read_csv("/data/train.csv")
submission = pd.read_csv("/data/test.csv")[["id"]].assign(spiral=train["spiral"].mode()[0])
submission.to_csv("/workspace/submission.csv", index=False)
