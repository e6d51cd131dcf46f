"""Repeats the last week of each district."""

import pandas as pd

train = pd.read_csv("/data/train.csv", parse_dates=["time"])
test = pd.read_csv("/data/test.csv", parse_dates=["time"])
last = train[train["time"] > train["time"].max() - pd.Timedelta(days=7)]
week = last.assign(hour=last["time"].dt.day_of_week * 24 + last["time"].dt.hour)
known = week.set_index(["district", "hour"])["demand"]
keys = pd.MultiIndex.from_arrays([test["district"], test["time"].dt.day_of_week * 24 + test["time"].dt.hour])
test[["id"]].assign(demand=known.loc[keys].to_numpy()).to_csv("/workspace/submission.csv", index=False)
