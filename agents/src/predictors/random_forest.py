"""A random forest with default settings on all columns coded as numbers."""

from automl_common import (
    IS_CLASSES,
    SPEC,
    THREADS,
    Calendar,
    Features,
    Pixels,
    Piped,
    Problem,
    np,
    sys,
    widen,
    write_submission,
)
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

seed = int(sys.argv[1])
problem = Problem(seed)
kind = RandomForestClassifier if IS_CLASSES else RandomForestRegressor
forest = kind(n_jobs=THREADS, random_state=seed)
if SPEC["kind"] == "forecast":
    calendar = Calendar("forest").fit(problem.x, problem.y)
    forest.fit(calendar.table(problem.x).drop(columns=["profile"]), problem.y)
    predicted = forest.predict(calendar.table(problem.x_test).drop(columns=["profile"]))
else:
    before = Pixels() if SPEC["kind"] == "image" else Features("trees")
    model = Piped(before, forest).fit(problem.x, problem.y)
    if IS_CLASSES:
        predicted = widen(forest, model.predict_proba(problem.x_test), len(problem.classes))
    else:
        predicted = np.asarray(model.predict(problem.x_test), float)
write_submission(problem, predicted)
