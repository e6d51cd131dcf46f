from mlgym_grader import labels, read_table, reject, reward
from sklearn.metrics import log_loss

ids, rows = labels()
table = read_table(["malignant"], ids)
outside = table["malignant"][(table["malignant"] < 0) | (table["malignant"] > 1)]
if len(outside):
    reject(f"the probability for the id {outside.index[0]} is {outside.iloc[0]}; it must lie between 0 and 1")
predicted = table["malignant"].loc[rows["id"]].clip(1e-6, 1 - 1e-6)
reward(log_loss=log_loss(rows["target"].astype(int), predicted, labels=[0, 1]))
