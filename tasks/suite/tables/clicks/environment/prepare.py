"""Makes advertisements whose clicks depend on words with many values, some of them seen once."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(73)
n = 15_000


def words(name, count, spread):
    """Words with a long tail, and what each of them adds."""
    shares = rng.dirichlet(1 / np.arange(1, count + 1) * 8)
    chosen = rng.choice(count, n, p=shares)
    return np.array([f"{name}_{index}" for index in range(count)])[chosen], rng.normal(0, spread, count)[chosen]


site, site_adds = words("site", 400, 0.8)
campaign, campaign_adds = words("campaign", 150, 0.7)
city, city_adds = words("city", 600, 0.3)
device, device_adds = words("device", 60, 0.4)
hour = rng.integers(0, 24, n)
position = rng.integers(1, 6, n)
seen = rng.poisson(1.5, n)
age = np.where(rng.random(n) < 0.3, np.nan, rng.normal(38, 12, n).round())
logit = (
    -1.4
    + site_adds
    + campaign_adds
    + city_adds
    + device_adds
    - 0.25 * position
    - 0.3 * np.minimum(seen, 4)
    + 0.4 * np.sin((hour - 6) / 24 * 2 * np.pi)
    + 0.6 * (site_adds > 0.8) * (position == 1)
)
table = pd.DataFrame(
    {
        "site": site,
        "campaign": campaign,
        "city": city,
        "device": device,
        "hour": hour,
        "position": position,
        "seen_before": seen,
        "age": age,
        "click": (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int),
    }
)
write_table(
    table,
    "click",
    seed=730,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="log_loss",
    goal="minimize",
    submission={"columns": ["click"], "prediction": "probability", "classes": [0, 1]},
)
