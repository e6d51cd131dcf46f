"""Makes forty thousand objects of three kinds with overlapping colours."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(37)
n = 40_000
names = np.array(["star", "galaxy", "quasar"])
kind = rng.choice(3, n, p=[0.35, 0.5, 0.15])
distance = np.where(kind == 0, 0.0, np.where(kind == 1, rng.gamma(2.0, 0.15, n), rng.gamma(4.0, 0.4, n)))
warmth = rng.normal([0.9, 0.7, 0.1], 0.45, (n, 3))[np.arange(n), kind]
faint = rng.normal([18.0, 19.0, 19.8], 1.4, (n, 3))[np.arange(n), kind]
bands = {}
for index, band in enumerate("ugriz"):
    shape = (2 - index) * warmth + 0.5 * np.sin(3 * distance + index) * (kind > 0)
    bands[band] = (faint + shape + rng.normal(0, 0.12 + 0.04 * np.maximum(faint - 19, 0))).round(3)
size = np.exp(rng.normal([0.1, 0.9, 0.2], 0.4, (n, 3))[np.arange(n), kind] - 0.12 * (faint - 18))
table = pd.DataFrame(bands).assign(
    size=size.round(3),
    roundness=rng.beta([9, 4, 9], [2, 3, 2], (n, 3))[np.arange(n), kind].round(3),
    right_ascension=rng.uniform(0, 360, n).round(3),
    declination=rng.normal(20, 18, n).round(3),
    seeing=rng.gamma(8, 0.15, n).round(2),
    kind=names[kind],
)
write_table(
    table,
    "kind",
    seed=370,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="log_loss",
    goal="minimize",
    submission={"columns": ["star", "galaxy", "quasar"], "prediction": "probability", "classes": ["star", "galaxy", "quasar"]},
)
