"""Makes points on four spirals in a plane that is turned in eight dimensions; a word says which way round."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(65)
n = 4000
spiral = rng.integers(0, 4, n)
sense = rng.choice([-1, 1], n)
radius = np.sqrt(rng.uniform(0.05, 1, n)) * 3
angle = sense * radius * 1.1 + spiral * np.pi / 2 + rng.normal(0, 0.28, n)
plane = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
turn, _ = np.linalg.qr(rng.normal(0, 1, (8, 8)))
points = np.hstack([plane, rng.normal(0, 0.5, (n, 6))]) @ turn
table = pd.DataFrame(points.round(4), columns=[f"x{index}" for index in range(8)])
table["sense"] = np.where(sense > 0, "left", "right")
table["spiral"] = np.array(["north", "east", "south", "west"])[spiral]
write_table(
    table,
    "spiral",
    seed=650,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="accuracy",
    goal="maximize",
    submission={"columns": ["spiral"], "prediction": "class", "classes": ["north", "east", "south", "west"]},
)
