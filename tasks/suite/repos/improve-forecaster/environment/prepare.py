"""Makes the hourly output of eight wind farms and the weather forecasts that were known the day before."""

import numpy as np
import pandas as pd
from mlgym_data import describe, public, write_labels, write_sample

rng = np.random.default_rng(20220405)
days, ahead = 420, 84
hours = 24 * (days + ahead)
when = pd.date_range("2020-01-01", periods=hours, freq="h")
hour, year = when.hour.to_numpy(), 2 * np.pi * when.day_of_year.to_numpy() / 365.25


def wander(scale, hold, size=hours):
    """A series that wanders around 0 with this spread and forgets by `hold` every hour."""
    steps = rng.normal(0, scale * np.sqrt(1 - hold**2), size)
    out, value = np.empty(size), rng.normal(0, scale)
    for i in range(size):
        value = hold * value + steps[i]
        out[i] = value
    return out


front = wander(1.0, 0.985)
turn = np.cumsum(wander(0.06, 0.95)) * 0.6 + 4.2
warm = 9 - 9 * np.cos(year - 0.35) + wander(3.0, 0.99)
press = 1013 - 6 * front + wander(6.0, 0.995)
frames = []
for index in range(8):
    capacity = float(rng.choice([12.0, 18.0, 24.0, 30.0, 42.0, 48.0]))
    site = rng.uniform(0.85, 1.2)
    shear = rng.uniform(0.1, 0.28)
    speed = site * np.exp(1.72 + 0.38 * front + 0.12 * np.cos(year) + wander(0.22, 0.95) + 0.08 * np.cos(2 * np.pi * (hour - 15) / 24))
    heading = turn + wander(0.25, 0.9) + rng.normal(0, 0.2)
    temperature = warm + rng.normal(0, 1) + 3.5 * np.cos(2 * np.pi * (hour - 15) / 24) + wander(0.8, 0.9)
    # At night the air is layered, and the wind at the hub is faster than what the ground suggests.
    night = 0.5 - 0.5 * np.cos(2 * np.pi * (hour - 3) / 24 + np.pi)
    hub = speed * (1 + shear * night * (temperature > 4))
    density = press / 1013 * 288 / (273 + temperature)
    blocked = rng.uniform(0, 2 * np.pi, 2)
    wake = 1 - sum(depth * np.exp(8 * (np.cos(heading - angle) - 1)) for depth, angle in zip((0.32, 0.22), blocked))
    effective = hub * wake * density ** (1 / 3)
    middle = rng.uniform(8.0, 9.4)
    share = 1 / (1 + np.exp(-(effective - middle) / 1.25)) - 1 / (1 + np.exp(middle / 1.25))
    share = np.clip(share, 0, 1) * (1 - 1 / (1 + np.exp(-(hub - 23.0) / 0.6)))
    # Ice takes some of the winter's output; some turbines stand still for days; the grid curtails windy nights.
    ice = 1 - 0.35 / (1 + np.exp((temperature - 0.0) / 0.7)) * (press < 1012)
    turbines = np.ones(hours)
    for start in rng.choice(hours, 14, replace=False):
        turbines[start : start + int(rng.integers(24, 200))] = 1 - rng.choice([1, 2, 3]) / 10
    limit = np.where((hour <= 5) & (share > 0.75), 0.75, 1.0) if index in (1, 4, 6) else np.ones(hours)
    output = capacity * np.minimum(share * ice * turbines, limit) + rng.normal(0, 0.012 * capacity, hours)
    # The forecast is smooth, a little late now and then, and biased for fast winds.
    late = int(rng.integers(0, 3))
    seen = pd.Series(np.roll(speed, late)).rolling(3, center=True, min_periods=1).mean().to_numpy()
    forecast = seen * np.exp(wander(0.12, 0.93)) * (1 - 0.01 * np.maximum(seen - 9, 0))
    frame = pd.DataFrame(
        {
            "farm": f"farm_{index + 1}",
            "time": when,
            "capacity_mw": capacity,
            "wind_10m": forecast.round(2),
            "wind_100m": (forecast * (1.24 + 0.3 * shear * night * (temperature > 4)) * np.exp(wander(0.06, 0.9))).round(2),
            "direction": (np.degrees(heading + wander(0.15, 0.9)) % 360).round(),
            "temperature": (temperature + wander(0.9, 0.95)).round(1),
            "pressure": (press + wander(0.8, 0.95)).round(1),
            "output_mw": np.clip(output, 0, capacity).round(3),
        }
    )
    for column in ("wind_100m", "direction"):
        for start in rng.choice(hours, 45, replace=False):
            frame.loc[start : start + int(rng.integers(1, 14)), column] = np.nan
    frames.append(frame)
table = pd.concat(frames, ignore_index=True).sort_values(["time", "farm"], kind="stable")
past = table["time"] < when[24 * days]
future = table[~past].copy().reset_index(drop=True)
future.insert(0, "id", np.arange(len(future)))
table[past].to_csv(public() / "train.csv", index=False)
future.drop(columns="output_mw").to_csv(public() / "test.csv", index=False)
# Whole days of all farms belong to one part, because neighbouring hours and farms give each other away.
day = (future["time"] - when[24 * days]).dt.days
parts = np.where(rng.random(ahead) < 0.3, "validation", "test")
write_labels(future["id"], future["output_mw"], parts[day])
submission = {"columns": ["output_mw"], "prediction": "value"}
write_sample(future["id"], submission, table.loc[past, "output_mw"])
describe(
    kind="forecast",
    task="regression",
    metric="mae",
    goal="minimize",
    train="train.csv",
    test="test.csv",
    id="id",
    target="output_mw",
    time="time",
    series="farm",
    horizon=24 * ahead,
    submission=submission,
)
