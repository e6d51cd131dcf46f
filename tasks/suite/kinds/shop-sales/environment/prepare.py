"""Makes two years of daily sales of a dozen products: the week, the year, prices, offers, holidays, and slow change."""

import numpy as np
import pandas as pd
from mlgym_data import describe, public, write_labels, write_sample

rng = np.random.default_rng(1776)
days, ahead = 730, 42
when = pd.date_range("2022-01-03", periods=days + ahead, freq="D")
day, weekday = np.arange(len(when)), when.day_of_week.to_numpy()
year = 2 * np.pi * when.day_of_year.to_numpy() / 365.25
fixed = {(1, 1), (5, 1), (10, 3), (12, 24), (12, 25), (12, 26), (12, 31)}
holiday = np.array([int((d.month, d.day) in fixed) for d in when])
holiday[rng.choice(len(when), 6, replace=False)] = 1
eve = np.append(holiday[1:], 0)
week = np.array([0.85, 0.82, 0.9, 1.0, 1.25, 1.45, 0.7])
products = ["bread", "butter", "candles", "charcoal", "coffee", "ice_cream", "lemonade", "pasta", "soup", "sun_cream", "tea", "tissues"]
phase = dict(candles=0.2, charcoal=3.3, ice_cream=3.4, lemonade=3.3, soup=0.2, sun_cream=3.3, tea=0.3, tissues=0.5)
frames = []
for name in products:
    base = np.exp(rng.normal(3.8, 0.6))
    swing = rng.uniform(0.4, 0.9) if name in phase else rng.uniform(0.0, 0.12)
    season = swing * np.cos(year - phase.get(name, 0.0)) + 0.12 * np.cos(2 * (year - rng.uniform(0, 6)))
    own_week = np.log(week) * rng.uniform(0.5, 1.3) + rng.normal(0, 0.05, 7)
    level = np.cumsum(rng.normal(0, 0.008, len(when))) * 0.6 + rng.uniform(-0.0004, 0.0006) * day
    list_price = np.round(np.exp(rng.normal(1.2, 0.5)), 2)
    # The list price rises now and then; an offer lasts four to ten days and takes a tenth to two fifths off.
    price = np.full(len(when), list_price)
    for start in np.sort(rng.choice(len(when), 3, replace=False)):
        price[start:] *= rng.uniform(1.01, 1.06)
    offer = np.zeros(len(when), int)
    start = int(rng.integers(5, 40))
    while start < len(when):
        length = int(rng.integers(4, 11))
        offer[start : start + length] = 1
        price[start : start + length] *= rng.uniform(0.6, 0.9)
        start += length + int(rng.integers(20, 75))
    usual = pd.Series(price).rolling(120, min_periods=1).median().to_numpy()
    elastic, shelf = rng.uniform(1.0, 2.6), rng.uniform(0.1, 0.35)
    mean = base * np.exp(
        season + own_week[weekday] + level - elastic * np.log(price / usual) + shelf * offer + 0.35 * eve - 1.1 * holiday
    )
    sold = rng.poisson(mean * rng.gamma(30, 1 / 30, len(when)))
    frames.append(
        pd.DataFrame({"product": name, "day": when, "price": price.round(2), "offer": offer, "holiday": holiday, "sold": sold})
    )
table = pd.concat(frames, ignore_index=True)
past = table["day"] < when[days]
future = table[~past].copy()
future.insert(0, "id", np.arange(len(future)))
table[past].to_csv(public() / "train.csv", index=False)
future.drop(columns="sold").to_csv(public() / "test.csv", index=False)
# Whole weeks of a product belong to one part, so that neighbouring days do not give each other away.
block = (future["day"] - when[days]).dt.days // 7 * 100 + future["product"].astype("category").cat.codes
parts = {key: "validation" if rng.random() < 0.3 else "test" for key in sorted(block.unique())}
write_labels(future["id"], future["sold"], block.map(parts))
submission = {"columns": ["sold"], "prediction": "value"}
write_sample(future["id"], submission, table.loc[past, "sold"])
describe(
    kind="forecast",
    task="regression",
    metric="mae",
    goal="minimize",
    train="train.csv",
    test="test.csv",
    id="id",
    target="sold",
    time="day",
    series="product",
    horizon=ahead,
    submission=submission,
)
