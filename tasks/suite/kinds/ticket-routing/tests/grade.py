from mlgym_grader import labels, read_table, reject, reward
from sklearn.metrics import f1_score

DESKS = ["billing", "delivery", "returns", "account", "technical", "advice"]
ids, rows = labels()
predicted = read_table(["desk"], ids, numeric=False)["desk"]
unknown = predicted[~predicted.isin(DESKS)]
if len(unknown):
    reject(f"{unknown.iloc[0]!r} for the id {unknown.index[0]} is no desk; the desks are {', '.join(DESKS)}")
reward(f1=f1_score(rows["target"], predicted.loc[rows["id"]], average="macro"))
