"""The mean of the last four weeks of each product on each day of the week."""

import pandas as pd

train = pd.read_csv("/data/train.csv", parse_dates=["day"])
test = pd.read_csv("/data/test.csv", parse_dates=["day"])
last = train[train["day"] > train["day"].max() - pd.Timedelta(days=28)]
known = last.groupby(["product", last["day"].dt.day_of_week])["sold"].mean()
keys = pd.MultiIndex.from_arrays([test["product"], test["day"].dt.day_of_week])
test[["id"]].assign(sold=known.loc[keys].to_numpy()).to_csv("/workspace/submission.csv", index=False)
