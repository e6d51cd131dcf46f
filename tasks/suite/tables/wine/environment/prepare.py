from mlgym_data import write_table
from sklearn.datasets import load_wine

bunch = load_wine(as_frame=True)
classes = ["first", "second", "third"]
names = [name.replace("/", "_over_") for name in bunch.data.columns]
table = bunch.data.set_axis(names, axis=1).assign(cultivar=[classes[index] for index in bunch.target])
write_table(
    table,
    "cultivar",
    seed=178,
    train=0.6,
    validation=0.15,
    kind="tabular",
    task="classification",
    metric="log_loss",
    goal="minimize",
    submission={"columns": classes, "prediction": "probability", "classes": classes},
)
