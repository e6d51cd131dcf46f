"""Makes five districts with daily and weekly rhythms, a trend, weather, holidays and noise that remembers."""

import numpy as np
import pandas as pd
from mlgym_data import describe, public, write_labels, write_sample

rng = np.random.default_rng(1882)
days, ahead = 150, 14
time = pd.date_range("2023-01-09", periods=(days + ahead) * 24, freq="h")
hour, weekday, day = time.hour.to_numpy(), time.day_of_week.to_numpy(), np.arange(len(time)) / 24


def remembering(size, memory, scale):
    noise = rng.normal(0, scale, size)
    for index in range(1, size):
        noise[index] += memory * noise[index - 1]
    return noise


season = 4 + 12 * np.sin(2 * np.pi * (day - 80) / 365.25) + 4
temperature = season + 4 * np.sin(2 * np.pi * (hour - 9) / 24) + remembering(len(time), 0.985, 0.35)
holidays = set(rng.choice(np.arange(5, days), 6, replace=False)) | set(days + rng.choice(ahead, 1))
holiday = np.isin(day.astype(int), list(holidays)).astype(int)
free = np.maximum(holiday, weekday >= 5)
frames = []
for index, name in enumerate(["harbour", "hills", "mill", "old_town", "riverside"]):
    level = 80 + 40 * index + rng.normal(0, 5)
    industry = rng.uniform(0.1, 0.9)
    morning = np.exp(-0.5 * ((hour - rng.uniform(7, 9)) / 2.0) ** 2)
    evening = np.exp(-0.5 * ((hour - rng.uniform(18, 20)) / 2.5) ** 2)
    work = ((hour >= 7) & (hour < 18)) * (1 - free)
    heating, cooling = np.maximum(0, 14 - temperature), np.maximum(0, temperature - 19)
    local = temperature + rng.normal(0, 0.5, len(time))
    demand = level * (
        0.7
        + 0.12 * morning * (1 - 0.5 * free)
        + 0.22 * evening
        + 0.30 * industry * work
        - 0.08 * (weekday == 6)
        + rng.uniform(0.008, 0.016) * heating
        + rng.uniform(0.01, 0.025) * cooling * (hour > 9)
        + rng.uniform(-0.0006, 0.001) * day
        + remembering(len(time), 0.9, 0.012)
    )
    frames.append(
        pd.DataFrame(
            {"district": name, "time": time, "temperature": local.round(1), "holiday": holiday, "demand": demand.round(2)}
        )
    )
table = pd.concat(frames, ignore_index=True)
past = table["time"] < time[days * 24]
future = table[~past].copy()
future.insert(0, "id", np.arange(len(future)))
table[past].to_csv(public() / "train.csv", index=False)
future.drop(columns="demand").to_csv(public() / "test.csv", index=False)
# Whole days of a district belong to one part, so that neighbouring hours do not give each other away.
block = future["time"].dt.day_of_year * 10 + future["district"].astype("category").cat.codes
parts = {key: "validation" if rng.random() < 0.35 else "test" for key in sorted(block.unique())}
write_labels(future["id"], future["demand"], block.map(parts))
submission = {"columns": ["demand"], "prediction": "value"}
write_sample(future["id"], submission, table.loc[past, "demand"])
describe(
    kind="forecast",
    task="regression",
    metric="mae",
    goal="minimize",
    train="train.csv",
    test="test.csv",
    id="id",
    target="demand",
    time="time",
    series="district",
    horizon=ahead * 24,
    submission=submission,
)
