"""Makes samples with two hundred columns of which twelve matter, two of them only together."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(54)
n, width = 1800, 200
common = rng.normal(0, 1, (n, 10))
columns = rng.normal(0, 1, (n, width)) + common @ rng.normal(0, 0.35, (10, width))
chosen = rng.choice(width, 12, replace=False)
weights = rng.normal(0, 0.6, 12)
signal = columns[:, chosen]
logit = signal[:, :8] @ weights[:8] + 0.9 * signal[:, 8] * signal[:, 9] + 0.7 * np.abs(signal[:, 10]) - 0.8 * (signal[:, 11] > 1)
table = pd.DataFrame(columns.round(4), columns=[f"m{index:03d}" for index in range(width)])
table["positive"] = (rng.random(n) < 1 / (1 + np.exp(-(logit - np.median(logit))))).astype(int)
write_table(
    table,
    "positive",
    seed=540,
    train=0.5,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="roc_auc",
    goal="maximize",
    submission={"columns": ["positive"], "prediction": "probability", "classes": [0, 1]},
)
