from mlgym_data import write_table
from sklearn.datasets import load_diabetes

bunch = load_diabetes(as_frame=True, scaled=False)
table = bunch.data.assign(progression=bunch.target)
write_table(
    table,
    "progression",
    seed=442,
    train=0.6,
    validation=0.2,
    kind="tabular",
    task="regression",
    metric="rmse",
    goal="minimize",
    submission={"columns": ["progression"], "prediction": "value"},
)
