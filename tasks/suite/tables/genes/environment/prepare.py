"""Makes plants with more genes than there are plants; thirty genes matter, a little each."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(101)
n, width = 400, 300
pathways = rng.normal(0, 1, (n, 15))
genes = pathways @ rng.normal(0, 0.6, (15, width)) + rng.normal(0, 1, (n, width))
weights = np.zeros(width)
weights[rng.choice(width, 30, replace=False)] = rng.normal(0, 1, 30)
signal = genes @ weights
table = pd.DataFrame(genes.round(3), columns=[f"gene_{index:03d}" for index in range(width)])
table["yield"] = (50 + 4 * signal / signal.std() + rng.normal(0, 2.5, n)).round(2)
write_table(
    table,
    "yield",
    seed=1010,
    train=0.4,
    validation=0.2,
    kind="tabular",
    task="regression",
    metric="r2",
    goal="maximize",
    submission={"columns": ["yield"], "prediction": "value"},
)
