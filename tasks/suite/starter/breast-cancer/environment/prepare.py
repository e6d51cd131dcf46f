from mlgym_data import write_table
from sklearn.datasets import load_breast_cancer

bunch = load_breast_cancer(as_frame=True)
table = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
table["malignant"] = 1 - bunch.target
write_table(
    table,
    "malignant",
    seed=569,
    train=0.6,
    validation=0.2,
    kind="tabular",
    task="classification",
    metric="log_loss",
    goal="minimize",
    submission={"columns": ["malignant"], "prediction": "probability", "classes": [0, 1]},
)
