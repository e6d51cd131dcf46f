"""Makes sales whose price is a product of what a house has, with a long tail and missing cells."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(28)
n = 3000
district = rng.integers(0, 45, n)
level = rng.normal(0, 0.35, 45)[district]
area = np.exp(rng.normal(4.7, 0.4, n)).round()
rooms = np.clip((area / 28 + rng.normal(0, 1, n)).round(), 1, 12)
year = np.clip(2024 - rng.gamma(2.0, 20.0, n), 1880, 2024).round()
conditions = np.array(["poor", "fair", "good", "renewed"])
condition = rng.choice(4, n, p=[0.1, 0.3, 0.45, 0.15])
kind = rng.choice(["flat", "terraced", "detached", "villa"], n, p=[0.5, 0.25, 0.2, 0.05])
garden = np.where(kind == "flat", 0, np.exp(rng.normal(5, 0.8, n))).round()
floor = np.where(kind == "flat", rng.integers(0, 9, n), 0)
lift = (floor > 3) & (rng.random(n) < 0.7)
transit = np.exp(rng.normal(6, 0.8, n)).round()
log_price = (
    0.5
    + level
    + 0.95 * np.log(area)
    + np.array([-0.25, -0.08, 0.0, 0.15])[condition]
    + 0.0015 * (year - 1960) * (condition < 3)
    + 0.06 * np.log1p(garden)
    + 0.5 * (kind == "villa")
    - 0.03 * floor * ~lift
    - 0.12 * np.log(transit / 400) * (level > 0)
    + rng.standard_t(4, n) * 0.09
)
table = pd.DataFrame(
    {
        "district": [f"district_{index}" for index in district],
        "area": area,
        "rooms": rooms,
        "year": year,
        "condition": conditions[condition],
        "kind": kind,
        "garden": garden,
        "floor": floor,
        "lift": np.where(lift, "yes", "no"),
        "transit_metres": transit,
        "price": np.exp(log_price).round(1),
    }
)
for column, share in [("year", 0.12), ("condition", 0.1), ("transit_metres", 0.06), ("rooms", 0.05)]:
    table.loc[rng.random(n) < share, column] = None
write_table(
    table,
    "price",
    seed=280,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="regression",
    metric="mae",
    goal="minimize",
    submission={"columns": ["price"], "prediction": "value"},
)
