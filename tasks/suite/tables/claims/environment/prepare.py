"""Makes counts of claims that grow with exposure, with a word of 250 values among the columns."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(122)
n = 10_000
vehicles = np.clip(rng.gamma(1.5, 8.0, n), 1, 120).round()
models = rng.choice(250, n, p=rng.dirichlet(np.full(250, 0.8)))
adds = rng.normal(0, 0.5, 250)[models]
trades = np.array(["taxi", "delivery", "trade", "office", "care"])
trade = rng.choice(5, n)
age = np.clip(rng.normal(41, 9, n), 20, 68).round(1)
kilometres = np.exp(rng.normal(10.2, 0.5, n)).round(-2)
telematics = rng.choice(["yes", "no"], n, p=[0.3, 0.7])
power = rng.gamma(9, 12, n).round()
rate = np.exp(
    -3.2
    + adds
    + np.array([0.6, 0.4, 0.0, -0.4, 0.1])[trade]
    + 0.35 * np.log(kilometres / 27000)
    + 0.0012 * (age - 43) ** 2
    - 0.3 * (telematics == "yes") * (trade < 2)
    + 0.002 * (power - 100)
)
claims = rng.poisson(vehicles * rate * rng.gamma(4, 0.25, n))
table = pd.DataFrame(
    {
        "vehicles": vehicles,
        "model": [f"model_{index:03d}" for index in models],
        "trade": trades[trade],
        "mean_age": age,
        "kilometres": kilometres,
        "telematics": telematics,
        "power": power,
        "claims": claims,
    }
)
table.loc[rng.random(n) < 0.2, "power"] = None
write_table(
    table,
    "claims",
    seed=1220,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="regression",
    metric="rmse",
    goal="minimize",
    submission={"columns": ["claims"], "prediction": "value"},
)
