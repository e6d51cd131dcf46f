"""Makes loans whose default depends on several columns at once, then hides some of the cells."""

import numpy as np
import pandas as pd
from mlgym_data import write_table

rng = np.random.default_rng(20240607)
n = 6000
cities = [f"city_{index:02d}" for index in range(40)]
city_risk = rng.normal(0, 0.5, len(cities))
city = rng.choice(len(cities), n, p=rng.dirichlet(np.full(len(cities), 2.0)))
purposes = ["car", "home", "education", "business", "debt", "holiday"]
purpose_risk = np.array([-0.3, -0.5, 0.1, 0.4, 0.6, 0.2])
purpose = rng.integers(0, len(purposes), n)
employments = ["employed", "self_employed", "unemployed", "retired", "student"]
employment = rng.choice(len(employments), n, p=[0.6, 0.16, 0.07, 0.11, 0.06])
income = np.exp(rng.normal(10.4, 0.5, n)) * np.array([1.0, 1.1, 0.35, 0.6, 0.3])[employment]
amount = np.exp(rng.normal(9.2, 0.7, n)) * np.array([1.2, 1.8, 0.9, 1.5, 1.0, 0.5])[purpose]
term = rng.choice([12, 24, 36, 48, 60, 84], n)
age = np.clip(rng.normal(42, 13, n), 18, 80).round()
history = np.clip(rng.gamma(2.0, 4.0, n), 0, age - 17).round(1)
late = rng.poisson(0.6 + 0.8 * (employment == 2))
score = np.clip(rng.normal(640, 80, n) + 3 * history - 35 * late, 300, 850).round()
rate = (4 + 12 * (850 - score) / 550 + rng.normal(0, 1.0, n)).clip(1).round(2)
applied = pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 1460, n), unit="D")
burden = np.log((amount / term) / (income / 12))
crisis = ((applied >= "2020-03-01") & (applied < "2021-01-01")).astype(float)
logit = (
    -3.1
    + 1.0 * np.clip(burden + 3.0, -1, 3)
    - 0.008 * (score - 640)
    + 0.35 * np.minimum(late, 4)
    + purpose_risk[purpose]
    + city_risk[city]
    + 0.9 * ((employment == 1) & (crisis > 0))
    + 0.7 * crisis
    + 0.6 * ((age < 25) & (term >= 60))
    + 0.03 * np.abs(age - 45)
    + rng.normal(0, 0.4, n)
)
table = pd.DataFrame(
    {
        "applied": applied.strftime("%Y-%m-%d"),
        "city": np.array(cities)[city],
        "purpose": np.array(purposes)[purpose],
        "employment": np.array(employments)[employment],
        "income": income.round(0),
        "amount": amount.round(-1),
        "term_months": term,
        "age": age,
        "credit_history_years": history,
        "late_payments": late,
        "credit_score": score,
        "interest_rate": rate,
        "default": (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int),
    }
)
for column, share in [("income", 0.08), ("credit_score", 0.12), ("employment", 0.05), ("credit_history_years", 0.06)]:
    table.loc[rng.random(n) < share, column] = None
write_table(
    table,
    "default",
    seed=6000,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="roc_auc",
    goal="maximize",
    submission={"columns": ["default"], "prediction": "probability", "classes": [0, 1]},
)
