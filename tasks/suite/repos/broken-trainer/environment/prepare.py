"""Makes the pipe segments of a water network and the log of their past failures, from one seeded source of chance."""

import numpy as np
import pandas as pd
from mlgym_data import public, write_labels

rng = np.random.default_rng(20190714)
n, known = 10000, 6000
materials = np.array(["cast iron", "ductile iron", "steel", "asbestos cement", "pvc", "polyethylene"])
# The decades in which each material was laid, and what a metal suffers from its soil.
laid = {0: (1895, 1965), 1: (1962, 2005), 2: (1930, 1990), 3: (1948, 1980), 4: (1968, 2014), 5: (1982, 2016)}
metal = np.array([1.0, 0.6, 1.0, 0.1, 0.0, 0.0])
wear = np.array([0.022, 0.018, 0.03, 0.035, 0.012, 0.008])
soils = np.array(["sand", "loam", "clay", "peat", "fill"])
corrosive = np.array([-0.6, 0.0, 0.5, 1.1, 0.7])
districts = np.array([f"D{number:03d}" for number in rng.permutation(900)[:120] + 100])
crowd = rng.dirichlet(np.full(len(districts), 0.8))
district_risk = 0.35 * (np.log(crowd + 0.002) - np.log(crowd + 0.002).mean()) + rng.normal(0, 0.15, len(districts))

district = rng.choice(len(districts), n, p=crowd)
material = rng.choice(len(materials), n, p=[0.3, 0.14, 0.1, 0.12, 0.2, 0.14])
soil = np.array([rng.choice(5, p=row) for row in rng.dirichlet([2, 3, 2.5, 0.7, 1], len(districts))[district]])
year = np.array([rng.integers(*laid[m]) for m in material])
installed = pd.to_datetime([f"{y}-01-01" for y in year]) + pd.to_timedelta(rng.integers(0, 365, n), unit="D")
surveyed = pd.Timestamp("2016-06-01") + pd.to_timedelta(rng.integers(0, 390, n), unit="D")
age = (surveyed - installed).days.to_numpy() / 365.25
diameter = rng.choice([80, 100, 125, 150, 200, 250, 300, 400], n, p=[0.1, 0.25, 0.13, 0.22, 0.14, 0.06, 0.06, 0.04])
length = np.exp(rng.normal(4.0, 0.8, n)).clip(3, 900).round(1)
depth = rng.normal(130, 28, n).clip(40).round()
pressure = rng.normal(4.2, 1.1, n).clip(0.8, 9).round(2)
street = rng.choice(["footway", "local", "collector", "arterial"], n, p=[0.2, 0.45, 0.22, 0.13])
traffic = pd.Series({"footway": -0.3, "local": 0.0, "collector": 0.2, "arterial": 0.5})[street].to_numpy()
lining = np.where(metal[material] > 0.5, rng.choice(["cement", "epoxy", "none"], n, p=[0.35, 0.1, 0.55]), "none")
frailty = rng.normal(0, 0.5, n)
risk = (
    1.4 * wear[material] * (age - 35)
    + metal[material] * (0.9 * corrosive[soil] - 0.5 * (lining != "none"))
    + 0.5 * (pressure - 4.2)
    - 0.7 * np.log(diameter / 150)
    + 0.6 * (np.log(length) - 4.0)
    - 0.012 * (depth - 130)
    + traffic * (1 + 0.5 * (material == 3))
    + district_risk[district]
    + 0.5 * ((material == 0) & (year >= 1940) & (year < 1955))
    + frailty
)
# The past of a segment tells of its frailty, and of what was repaired badly not long ago.
past = []
causes = np.array(["corrosion", "joint", "fracture", "third party"])
recent = np.zeros(n)
for row in range(n):
    for _ in range(rng.poisson(0.28 * np.exp(0.75 * risk[row]))):
        back = rng.uniform(0.02, min(15.0, age[row]))
        cause = rng.choice(4, p=[0.4, 0.25, 0.2, 0.15] if metal[material[row]] > 0.5 else [0.05, 0.4, 0.35, 0.2])
        past.append((row, surveyed[row] - pd.Timedelta(days=int(back * 365.25) + 1), causes[cause]))
        recent[row] += (cause != 3) * 0.5 ** (back / 2.5)
failed = rng.random(n) < 1 / (1 + np.exp(-(risk + 1.1 * np.minimum(recent, 3) - 2.1)))

table = pd.DataFrame(
    {
        "id": np.arange(n),
        "district": districts[district],
        "street": street,
        "material": materials[material],
        "soil": soils[soil],
        "lining": lining,
        "installed": installed.strftime("%Y-%m-%d"),
        "surveyed": surveyed.strftime("%Y-%m-%d"),
        "diameter_mm": diameter,
        "length_m": length,
        "depth_cm": depth.astype(int),
        "pressure_bar": pressure,
        "failed": failed.astype(int),
    }
)
# What nobody wrote down is -9 where a number belongs and empty where a word does.
for column, share in [("diameter_mm", 0.12), ("depth_cm", 0.24), ("pressure_bar", 0.2)]:
    table.loc[rng.random(n) < share, column] = -9
for column, share in [("soil", 0.08), ("lining", 0.15)]:
    table.loc[rng.random(n) < share, column] = None
log = pd.DataFrame(past, columns=["id", "date", "cause"])
log = log.iloc[rng.permutation(len(log))].reset_index(drop=True)
log["date"] = log["date"].dt.strftime("%Y-%m-%d")
# The log was typed by hand.
typed = rng.random(len(log))
log["cause"] = np.where(typed < 0.2, log["cause"].str.title(), np.where(typed < 0.3, log["cause"] + " ", log["cause"]))

hidden = table.iloc[known:]
table.iloc[:known].to_csv(public() / "train.csv", index=False)
hidden.drop(columns="failed").to_csv(public() / "test.csv", index=False)
log.to_csv(public() / "failures.csv", index=False)
write_labels(hidden["id"], hidden["failed"], np.where(rng.random(len(hidden)) < 0.3, "validation", "test"))
hidden[["id"]].assign(failed=round(float(table["failed"][:known].mean()), 4)).to_csv(
    public() / "sample_submission.csv", index=False
)
