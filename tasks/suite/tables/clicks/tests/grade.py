from mlgym_grader import labels, read_table, reject, reward
from sklearn.metrics import log_loss

ids, rows = labels()
table = read_table(["click"], ids)
outside = table["click"][(table["click"] < 0) | (table["click"] > 1)]
if len(outside):
    reject(f"the value for the id {outside.index[0]} is {outside.iloc[0]}; it must lie between 0 and 1")
predicted, known = table["click"].loc[rows["id"]], rows["target"].astype(int)
reward(log_loss=log_loss(known, predicted.clip(1e-6, 1 - 1e-6)))
