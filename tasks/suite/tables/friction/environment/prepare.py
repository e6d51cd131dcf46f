"""Makes J. H. Friedman's first function of five columns, with forty that do not matter."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(19)
n, width = 1500, 45
x = rng.uniform(0, 1, (n, width))
a, b, c, d, e = x[:, rng.choice(width, 5, replace=False)].T
stopping = 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e + rng.normal(0, 1.0, n)
table = pd.DataFrame(x.round(4), columns=[f"reading_{index:02d}" for index in range(width)])
table["stopping"] = stopping.round(3)
write_table(
    table,
    "stopping",
    seed=190,
    train=0.5,
    validation=0.15,
    kind="tabular",
    task="regression",
    metric="rmse",
    goal="minimize",
    submission={"columns": ["stopping"], "prediction": "value"},
)
