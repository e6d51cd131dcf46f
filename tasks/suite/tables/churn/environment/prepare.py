"""Makes customers of whom few leave, and hides cells, some of them for a reason."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(81)
n = 8000
plan = rng.choice(["basic", "family", "business", "prepaid"], n, p=[0.45, 0.25, 0.1, 0.2])
region = rng.choice([f"region_{index}" for index in range(12)], n)
months = np.clip(rng.gamma(2.0, 14.0, n), 1, 120).round()
minutes = np.exp(rng.normal(5.2, 0.6, n)).round(1)
data = np.exp(rng.normal(1.5, 1.0, n)).round(2)
calls = rng.poisson(0.8 + 0.6 * (plan == "prepaid"))
bill = (12 + 0.05 * minutes + 2.0 * data + 8 * (plan == "business") + rng.normal(0, 4, n)).clip(5).round(2)
late = rng.poisson(0.3, n)
discount = rng.choice([0, 5, 10, 20], n, p=[0.6, 0.2, 0.15, 0.05])
satisfaction = np.clip(rng.normal(7, 2, n) - 0.8 * calls, 0, 10).round()
logit = (
    -4.6
    + 0.7 * np.minimum(calls, 5)
    - 0.02 * months
    + 1.1 * ((plan == "prepaid") & (months < 12))
    + 0.03 * (bill - 25) * (discount == 0)
    + 0.5 * np.minimum(late, 3)
    - 0.25 * (satisfaction - 6)
    + 0.5 * (region == "region_3")
    + rng.normal(0, 0.3, n)
)
leaves = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
table = pd.DataFrame(
    {
        "plan": plan,
        "region": region,
        "months": months,
        "minutes": minutes,
        "gigabytes": data,
        "service_calls": calls,
        "bill": bill,
        "late_payments": late,
        "discount": discount,
        "satisfaction": satisfaction,
        "leaves": leaves,
    }
)
# Who is unhappy answers the survey less often.
table.loc[rng.random(n) < 0.15 + 0.35 * (satisfaction < 5), "satisfaction"] = None
for column, share in [("minutes", 0.08), ("bill", 0.05), ("region", 0.1), ("months", 0.04)]:
    table.loc[rng.random(n) < share, column] = None
write_table(
    table,
    "leaves",
    seed=810,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="roc_auc",
    goal="maximize",
    submission={"columns": ["leaves"], "prediction": "probability", "classes": [0, 1]},
)
