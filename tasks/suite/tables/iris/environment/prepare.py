from mlgym_data import write_table
from sklearn.datasets import load_iris

bunch = load_iris(as_frame=True)
names = [name.replace(" (cm)", "").replace(" ", "_") for name in bunch.data.columns]
table = bunch.data.set_axis(names, axis=1).assign(species=[bunch.target_names[index] for index in bunch.target])
classes = [str(name) for name in bunch.target_names]
write_table(
    table,
    "species",
    seed=150,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="log_loss",
    goal="minimize",
    submission={"columns": classes, "prediction": "probability", "classes": classes},
)
