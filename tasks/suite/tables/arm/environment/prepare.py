"""Makes positions of an arm with six joints: smooth, and all of them together."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(8)
n = 6000
angles = rng.uniform(-np.pi / 2, np.pi / 2, (n, 6))
lengths = np.array([0.55, 0.45, 0.35, 0.3, 0.2, 0.15])
bent, turned = np.cumsum(angles[:, ::2], axis=1), np.cumsum(angles[:, 1::2], axis=1)
bent, turned = np.repeat(bent, 2, axis=1), np.repeat(turned, 2, axis=1)
hand = np.column_stack(
    [
        (lengths * np.cos(bent) * np.cos(turned)).sum(axis=1),
        (lengths * np.sin(bent) * np.cos(turned)).sum(axis=1),
        (lengths * np.sin(turned)).sum(axis=1),
    ]
)
distance = np.linalg.norm(hand - np.array([0.1, 0.1, 0.1]), axis=1) + rng.normal(0, 0.02, n)
table = pd.DataFrame(angles.round(4), columns=[f"joint_{index}" for index in range(6)])
table["distance"] = distance.round(4)
write_table(
    table,
    "distance",
    seed=80,
    train=0.5,
    validation=0.15,
    kind="tabular",
    task="regression",
    metric="rmse",
    goal="minimize",
    submission={"columns": ["distance"], "prediction": "value"},
)
