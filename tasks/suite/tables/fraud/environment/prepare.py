"""Makes payments of which one in thirty-three is fraud, of two kinds that look different."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(92)
n = 12_000
fraud = (rng.random(n) < 0.03).astype(int)
kind = np.where(fraud == 1, rng.integers(1, 3, n), 0)
hour = np.where(kind == 1, rng.normal(3, 2.5, n) % 24, rng.normal(14, 5, n) % 24).round(1)
amount = np.exp(rng.normal(3.2, 1.1, n) + 1.3 * (kind == 1) - 1.0 * (kind == 2)).round(2)
distance = np.exp(rng.normal(1.5, 1.2, n) + 1.5 * (kind == 1)).round(1)
trades = np.array(["food", "fuel", "clothes", "travel", "games", "electronics", "health", "other"])
usual = rng.choice(8, n, p=[0.3, 0.15, 0.15, 0.08, 0.05, 0.1, 0.1, 0.07])
trade = np.where((kind == 2) & (rng.random(n) < 0.6), 4, usual)
repeats = rng.poisson(0.4 + 2.2 * (kind == 2))
scores = rng.normal(0, 1, (n, 12))
scores[:, :3] += 0.8 * (kind == 1)[:, None]
scores[:, 3:5] -= 0.9 * (kind == 2)[:, None]
scores[:, 5] = scores[:, 0] * scores[:, 3] + rng.normal(0, 0.5, n)
table = pd.DataFrame(scores.round(4), columns=[f"score_{index}" for index in range(12)])
table = table.assign(amount=amount, hour=hour, trade=trades[trade], distance=distance, repeats=repeats, fraud=fraud)
write_table(
    table,
    "fraud",
    seed=920,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="f1",
    goal="maximize",
    submission={"columns": ["fraud"], "prediction": "class", "classes": [0, 1]},
)
