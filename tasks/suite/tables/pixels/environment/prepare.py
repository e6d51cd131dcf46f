import pandas as pd
from mlgym_data import write_table
from sklearn.datasets import load_digits

bunch = load_digits()
table = pd.DataFrame(bunch.data.astype(int), columns=[f"pixel_{row}_{column}" for row in range(8) for column in range(8)])
table["digit"] = bunch.target
write_table(
    table,
    "digit",
    seed=640,
    train=600 / 1797,
    validation=0.2,
    kind="tabular",
    task="classification",
    metric="accuracy",
    goal="maximize",
    submission={"columns": ["digit"], "prediction": "class", "classes": list(range(10))},
)
