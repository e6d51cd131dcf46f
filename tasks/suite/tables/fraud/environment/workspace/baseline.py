"""Says of every row that it is of the rare class."""

import pandas as pd

submission = pd.read_csv("/data/test.csv")[["id"]].assign(fraud=1)
submission.to_csv("/workspace/submission.csv", index=False)
