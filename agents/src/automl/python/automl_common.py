"""What every training script of the AutoML agent shares: the data, the folds, the metric, the result file.

Written into the sandbox by the agent; reads /data/dataset.json and knows nothing of the task beyond it.
"""

import inspect
import json
import os
import pathlib
import sys
import time
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
DATA = pathlib.Path("/data")
WORK = pathlib.Path(os.environ.get("AUTOML_WORK", "/workspace/automl"))
OUT = WORK / "out"
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
SPEC = json.loads((DATA / "dataset.json").read_text())
IS_CLASSES = SPEC["task"] == "classification"

# Trials without improvement after which tuning stops.
PATIENCE = 15


def looks_like_dates(column):
    values = column.dropna().astype(str)
    if pd.api.types.is_numeric_dtype(column) or values.empty:
        return False
    sample = values.iloc[:200]
    if not sample.str.match(r"\d{4}-\d{2}-\d{2}").mean() > 0.95:
        return False
    return pd.to_datetime(sample, errors="coerce").notna().mean() > 0.95


def split_dates(table, origin):
    """Turns each date column into numbers and a category for its quarter."""
    for name in [name for name in table.columns if looks_like_dates(table[name])]:
        when = pd.to_datetime(table.pop(name), errors="coerce")
        table[f"{name}_days"] = (when - origin[name]).dt.total_seconds() / 86400
        table[f"{name}_month"] = when.dt.month
        table[f"{name}_weekday"] = when.dt.day_of_week
        table[f"{name}_quarter"] = when.dt.year.astype("Int64").astype(str) + "q" + when.dt.quarter.astype("Int64").astype(str)
    return table


class Problem:
    """The data as arrays or tables, the target, and the folds that all candidates share.

    `once` is the number of folds after which every row that can be predicted has been.
    """

    def __init__(self, seed):
        self.seed = seed
        train = pd.read_csv(DATA / SPEC["train"])
        test = pd.read_csv(DATA / SPEC["test"])
        target = train.pop(SPEC["target"])
        self.ids = test[SPEC["id"]]
        self.classes = SPEC["submission"].get("classes")
        if IS_CLASSES:
            if self.classes is None:
                self.classes = sorted(target.unique().tolist())
            index = {str(value): position for position, value in enumerate(self.classes)}
            self.y = target.astype(str).map(index).to_numpy()
        else:
            self.y = target.to_numpy(float)
        drop = [SPEC["id"]]
        if SPEC["kind"] == "image":
            self.x = np.load(DATA / SPEC["train_images"])
            self.x_test = np.load(DATA / SPEC["test_images"])
        elif SPEC["kind"] == "forecast":
            self.x, self.x_test = (table.drop(columns=drop, errors="ignore") for table in (train, test))
            for table in (self.x, self.x_test):
                table[SPEC["time"]] = pd.to_datetime(table[SPEC["time"]])
        else:
            x, x_test = (table.drop(columns=drop, errors="ignore") for table in (train, test))
            origin = {
                name: pd.to_datetime(x[name], errors="coerce").min() for name in x.columns if looks_like_dates(x[name])
            }
            self.x, self.x_test = split_dates(x, origin), split_dates(x_test, origin)
        self.once = 3
        self.folds = list(self._folds())

    def _folds(self):
        n = len(self.y)
        if SPEC["kind"] == "forecast":
            yield from self._windows()
            return
        from sklearn.model_selection import KFold, RepeatedKFold, RepeatedStratifiedKFold

        splits, repeats = (5, 2) if n < 1000 else (5, 1) if n < 50_000 else (3, 1)
        self.once = splits
        stratify = IS_CLASSES and np.bincount(self.y).min() >= splits
        kind = RepeatedStratifiedKFold if stratify else RepeatedKFold
        yield from kind(n_splits=splits, n_repeats=repeats, random_state=self.seed).split(np.zeros(n), self.y)

    def _windows(self, count=3):
        """Rolling origins: the last windows of the horizon's length, each predicted from all before it."""
        time = self.x[SPEC["time"]]
        moments = np.sort(time.unique())
        horizon = min(SPEC["horizon"], len(moments) // (count + 1))
        for index in range(count):
            start = moments[len(moments) - (count - index) * horizon]
            after = len(moments) - (count - index - 1) * horizon
            end = moments[after] if after < len(moments) else None
            held_out = (time >= start) & (True if end is None else time < end)
            yield np.flatnonzero(time < start), np.flatnonzero(held_out)


def take(x, rows):
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def score(y, predicted):
    """The task's metric, signed so that more is better. Classes are predicted as a matrix of probabilities."""
    from sklearn import metrics

    name = SPEC["metric"]
    if name == "log_loss":
        return -metrics.log_loss(y, np.clip(predicted, 1e-6, 1 - 1e-6), labels=range(predicted.shape[1]))
    if name == "roc_auc":
        if predicted.shape[1] == 2:
            return metrics.roc_auc_score(y, predicted[:, 1])
        return metrics.roc_auc_score(y, predicted, multi_class="ovr")
    if name == "accuracy":
        return metrics.accuracy_score(y, predicted.argmax(axis=1))
    if name == "f1":
        return metrics.f1_score(y, predicted.argmax(axis=1), average="binary" if predicted.shape[1] == 2 else "macro")
    if name == "rmse":
        return -float(np.sqrt(np.mean((y - predicted) ** 2)))
    if name == "mae":
        return -float(np.mean(np.abs(y - predicted)))
    if name == "r2":
        return metrics.r2_score(y, predicted)
    raise SystemExit(f"the metric {name} is not known")


def smooth_score(y, predicted):
    """The metric with a little of a smooth one in it, so that ties of a coarse metric are broken sensibly."""
    value = score(y, predicted)
    if SPEC["metric"] in ("accuracy", "f1"):
        p = np.clip(predicted[np.arange(len(y)), y], 1e-6, 1)
        return value + 0.01 * float(np.mean(np.log(p)))
    return value


def predict(model, x):
    if not IS_CLASSES:
        return np.asarray(model.predict(x), float).ravel()
    if hasattr(model, "predict_proba"):
        return model.predict_proba(x)
    margins = model.decision_function(x)
    if margins.ndim == 1:
        margins = np.column_stack([-margins, margins])
    margins = 2.0 * (margins - margins.max(axis=1, keepdims=True))
    return np.exp(margins) / np.exp(margins).sum(axis=1, keepdims=True)


def widen(model, probabilities, count):
    """Gives classes that a fold did not see their column."""
    if not IS_CLASSES or probabilities.shape[1] == count:
        return probabilities
    classes = getattr(model, "classes_", np.arange(probabilities.shape[1]))
    wide = np.zeros((len(probabilities), count))
    wide[:, classes] = probabilities
    return wide


def evaluate(problem, make, deadline=None):
    """Fits the model on every fold. Returns the out-of-fold predictions, the test predictions and the score.

    Test predictions are the mean over the folds' models; a forecast is refitted on everything instead, because its
    last weeks matter most. When time runs short, repetitions of the folds are left out; when not even every row can
    be predicted once, the candidate is given up.
    """
    count = len(problem.classes) if IS_CLASSES else None
    shape = (len(problem.y), count) if IS_CLASSES else (len(problem.y),)
    total, times, tests, fitted = np.zeros(shape), np.zeros(len(problem.y)), 0.0, 0
    started = time.monotonic()
    for fit, held_out in problem.folds:
        model = make().fit(take(problem.x, fit), problem.y[fit])
        total[held_out] += widen(model, predict(model, take(problem.x, held_out)), count)
        times[held_out] += 1
        if SPEC["kind"] != "forecast":
            tests = tests + widen(model, predict(model, problem.x_test), count)
        fitted += 1
        each = (time.monotonic() - started) / fitted
        if deadline and fitted >= 2 and fitted < problem.once and each * problem.once > deadline:
            raise TimeoutError(f"{problem.once} folds would take {each * problem.once:.0f} s")
        if deadline and fitted % problem.once == 0 and each * (fitted + problem.once) > deadline:
            break
    known = times > 0
    oof = np.full(shape, np.nan)
    oof[known] = total[known] / (times[known, None] if IS_CLASSES else times[known])
    if SPEC["kind"] == "forecast":
        tests, fitted = predict(make().fit(problem.x, problem.y), problem.x_test), 1
    return oof, tests / fitted, float(smooth_score(problem.y[known], oof[known]))


def finish(name, y, oof, test, value, seconds, parameters=None):
    """Keeps a candidate's predictions and prints its result as the last line."""
    OUT.mkdir(parents=True, exist_ok=True)
    if not (np.isfinite(value) and np.isfinite(test).all()):
        raise SystemExit("the predictions are not finite")
    known = ~np.isnan(oof).reshape(len(oof), -1).any(axis=1)
    np.savez(OUT / f"{name}.npz", oof=oof, test=test)
    raw = float(score(y[known], oof[known]))
    raw = raw if SPEC["goal"] == "maximize" else -raw
    print(json.dumps({"name": name, "score": value, "raw": raw, "seconds": seconds, "parameters": parameters or {}}))


def train(name, make, seed, deadline):
    """Cross-validates one candidate and keeps its predictions."""
    started = time.monotonic()
    problem = Problem(seed)
    oof, test, value = evaluate(problem, make, deadline)
    finish(name, problem.y, oof, test, value, time.monotonic() - started)


def tune(name, make, space, seed, seconds):
    """Searches a candidate's parameters with Optuna until the time is over, and keeps the best predictions."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    started = time.monotonic()
    problem = Problem(seed)
    best = {}

    def objective(trial):
        chosen = {}
        for key, kind, *bounds in space:
            if kind == "float":
                chosen[key] = trial.suggest_float(key, *bounds)
            elif kind == "log":
                chosen[key] = trial.suggest_float(key, *bounds, log=True)
            elif kind == "int":
                chosen[key] = trial.suggest_int(key, *map(int, bounds))
            else:
                chosen[key] = trial.suggest_categorical(key, bounds)
        left = seconds - (time.monotonic() - started)
        try:
            oof, test, value = evaluate(problem, lambda: make(**chosen), max(left, 1.0))
        except TimeoutError:
            raise optuna.TrialPruned() from None
        if not best or value > best["value"]:
            best.update(oof=oof, test=test, value=value, parameters=chosen)
        return value

    def stop_when_stuck(study, trial):
        done = [t for t in study.trials if t.value is not None]
        if done and trial.number - max(done, key=lambda t: t.value).number >= PATIENCE:
            study.stop()

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=6)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    # The untuned parameters come first, so that tuning never ends below them.
    study.enqueue_trial({name: p.default for name, p in inspect.signature(make).parameters.items()})
    study.optimize(
        objective, n_trials=60, timeout=seconds, catch=(ValueError, FloatingPointError), callbacks=[stop_when_stuck]
    )
    if not best:
        raise SystemExit("no set of parameters could be evaluated in time")
    finish(name, problem.y, best["oof"], best["test"], best["value"], time.monotonic() - started, best["parameters"])


def write_submission(problem, predicted):
    """Writes predictions in the form that dataset.json asks for."""
    columns = SPEC["submission"]["columns"]
    submission = pd.DataFrame({SPEC["id"]: problem.ids})
    if not IS_CLASSES:
        submission[columns[0]] = predicted
    elif SPEC["submission"]["prediction"] == "class":
        submission[columns[0]] = [problem.classes[index] for index in predicted.argmax(axis=1)]
    elif len(columns) == 1:
        submission[columns[0]] = np.clip(predicted[:, 1], 0, 1)
    else:
        submission[columns] = np.clip(predicted, 0, 1)
    submission.to_csv("/workspace/submission.csv", index=False)


# ------------------------------------------------------------------------------------------------- features


def columns_of(table, high=30):
    """Sorts a table's columns into numbers, categories with few values and categories with many."""
    numbers = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
    words = [name for name in table.columns if name not in numbers]
    few = [name for name in words if table[name].nunique() <= high]
    return numbers, few, [name for name in words if name not in few]


class Features:
    """A scikit-learn transformer that looks at the columns only when it is fitted."""

    def __init__(self, kind):
        self.kind = kind

    def fit(self, x, y=None):
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PowerTransformer, StandardScaler, TargetEncoder

        numbers, few, many = columns_of(x)
        if self.kind == "trees":
            coder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
            target = TargetEncoder(random_state=0, target_type="continuous")
            parts = [("numbers", "passthrough", numbers), ("few", coder, few), ("many", target, many)]
        else:
            fill = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
            hot = OneHotEncoder(handle_unknown="ignore", min_frequency=5, sparse_output=False)
            target = make_pipeline(TargetEncoder(random_state=0, target_type="continuous"), StandardScaler())
            skewed = [name for name in numbers if self.kind == "power" and abs(x[name].skew()) > 0.5]
            straight = [name for name in numbers if name not in skewed]
            power = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), PowerTransformer())
            parts = [("power", power, skewed), ("numbers", fill, straight), ("few", hot, few), ("many", target, many)]
        self.transformer = ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0)
        self.first = self.transformer.fit_transform(x, y)
        return self

    def fit_transform(self, x, y=None):
        # Target encoding is cross-fitted here, so that training rows do not see their own target.
        self.fit(x, y)
        first, self.first = self.first, None
        return first

    def transform(self, x):
        return np.asarray(self.transformer.transform(x), float)


class Piped:
    """A transformer and a model in a row, without scikit-learn's cloning."""

    def __init__(self, *steps):
        *self.before, self.model = steps

    def fit(self, x, y):
        for step in self.before:
            x = step.fit_transform(x, y)
        self.model.fit(x, y)
        self.classes_ = getattr(self.model, "classes_", None)
        if hasattr(self.model, "predict_proba"):
            self.predict_proba = lambda x: self.model.predict_proba(self._before(x))
        return self

    def _before(self, x):
        for step in self.before:
            x = step.transform(x)
        return x

    def predict(self, x):
        return self.model.predict(self._before(x))

    def decision_function(self, x):
        return self.model.decision_function(self._before(x))


class Pixels:
    """Flattens images to rows of numbers between 0 and 1; `shifts` adds copies moved by one pixel when fitting."""

    def __init__(self):
        self.scale = None

    def fit(self, x, y=None):
        self.scale = max(float(np.max(x)), 1.0)
        return self

    def fit_transform(self, x, y=None):
        return self.fit(x).transform(x)

    def transform(self, x):
        return np.asarray(x, float).reshape(len(x), -1) / self.scale


class Shifted:
    """Fits a model on images and on copies of them moved by one pixel in each direction."""

    def __init__(self, model):
        self.model = model

    def fit(self, x, y):
        height, width = np.shape(x)[1:3]
        moved = [x]
        for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
            copy = np.roll(x, step, axis=axis)
            edge = 0 if step > 0 else (height, width)[axis - 1] - 1
            copy[(slice(None), edge) if axis == 1 else (slice(None), slice(None), edge)] = 0
            moved.append(copy)
        self.model.fit(np.concatenate(moved), np.concatenate([y] * len(moved)))
        self.classes_ = self.model.classes_
        if hasattr(self.model, "predict_proba"):
            self.predict_proba = self.model.predict_proba
        return self

    def predict(self, x):
        return self.model.predict(x)

    def decision_function(self, x):
        return self.model.decision_function(x)


class Calendar:
    """Turns series, time and what else is known ahead into features; knows the past of each series."""

    def __init__(self, kind):
        self.kind = kind

    def _known(self, x):
        return [name for name in x.columns if name not in (SPEC["series"], SPEC["time"])]

    def fit(self, x, y):
        table = x.assign(y=y)
        self.start = x[SPEC["time"]].min()
        self.known = [name for name in self._known(x) if pd.api.types.is_numeric_dtype(x[name])]
        self.flags = [name for name in self.known if x[name].nunique() <= 3]
        step = np.diff(np.sort(x[SPEC["time"]].unique())[:50]).min()
        self.step = pd.Timedelta(step)
        self.per_day = max(1, round(pd.Timedelta(days=1) / self.step))
        # The last weeks' mean of each slot of the week: what a seasonal naive forecast would say.
        recent = table[table[SPEC["time"]] > table[SPEC["time"]].max() - pd.Timedelta(days=28)]
        slots = self._slot(recent)
        self.profile = recent.groupby([recent[SPEC["series"]], slots])["y"].mean()
        self.level = recent.groupby(SPEC["series"])["y"].mean()
        return self

    def _slot(self, x):
        when = x[SPEC["time"]]
        seconds = when.dt.hour * 3600 + when.dt.minute * 60
        kind = when.dt.day_of_week
        for name in self.flags:
            kind = kind.where(x[name] == 0, 7)
        return kind * 10_000 + (seconds // self.step.total_seconds()).astype(int)

    def table(self, x):
        """Numbers for trees."""
        when = x[SPEC["time"]]
        slot = self._slot(x)
        days = (when - self.start).dt.total_seconds() / 86400
        keys = pd.MultiIndex.from_arrays([x[SPEC["series"]], slot])
        level = x[SPEC["series"]].map(self.level).to_numpy(float)
        profile = self.profile.reindex(keys).to_numpy(float)
        numbers = {
            "series": x[SPEC["series"]].astype("category").cat.codes.to_numpy(),
            "hour": (slot % 10_000).to_numpy(),
            "kind": (slot // 10_000).to_numpy(),
            "free": ((slot // 10_000) >= 5).astype(int).to_numpy(),
            "days": days.to_numpy(),
            "level": level,
            "profile": np.where(np.isnan(profile), level, profile) / level,
        }
        for name in self.known:
            numbers[name] = x[name].to_numpy(float)
        return pd.DataFrame(numbers)


class Boosted:
    """Gradient boosting on the calendar's table, for all series together, relative to each series' level."""

    def __init__(self, model):
        self.model = model

    def fit(self, x, y):
        self.calendar = Calendar("trees").fit(x, y)
        table = self.calendar.table(x).drop(columns=["profile"])
        self.model.fit(table, y / table["level"])
        return self

    def predict(self, x):
        table = self.calendar.table(x).drop(columns=["profile"])
        return self.model.predict(table) * table["level"].to_numpy()


class PerSeries:
    """A linear model for each series on the slots of the week, the known numbers bent at knots, and the trend."""

    def __init__(self, make, pooled_days=False, recent_days=None):
        self.make, self.pooled_days, self.recent_days = make, pooled_days, recent_days

    def _slots(self, table):
        kind = table["free"] if self.pooled_days else table["kind"]
        return (kind.astype(int) * 10_000 + table["hour"].astype(int)).to_numpy()

    def _design(self, x):
        table = self.calendar.table(x)
        slot = self._slots(table)
        hot = self.encoder.transform(slot.reshape(-1, 1))
        weekday = self.days.transform(table[["kind"]].to_numpy())
        columns = [hot, weekday, table[["days"]].to_numpy() / 100]
        for name, knots in self.knots.items():
            value = table[name].to_numpy(float)
            bends = np.column_stack([value, *[np.maximum(value - knot, 0) for knot in knots]]) / self.spread[name]
            columns.append(bends)
            daytime = ((table["hour"] / self.calendar.per_day > 0.35) & (table["hour"] / self.calendar.per_day < 0.95)).to_numpy()
            columns.append(bends * daytime[:, None])
        return np.hstack(columns)

    def fit(self, x, y):
        from sklearn.preprocessing import OneHotEncoder

        if self.recent_days:
            keep = (x[SPEC["time"]] > x[SPEC["time"]].max() - pd.Timedelta(days=self.recent_days)).to_numpy()
            x, y = x[keep], y[keep]
        self.calendar = Calendar("linear").fit(x, y)
        table = self.calendar.table(x)
        numbers = [name for name in self.calendar.known if name not in self.calendar.flags]
        self.knots = {name: np.quantile(table[name], [0.15, 0.3, 0.5, 0.7, 0.85]) for name in numbers}
        self.spread = {name: float(table[name].std()) or 1.0 for name in numbers}
        slot = self._slots(table)
        self.encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(slot.reshape(-1, 1))
        self.days = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(table[["kind"]].to_numpy())
        design, series = self._design(x), x[SPEC["series"]].to_numpy()
        self.models = {name: self.make().fit(design[series == name], y[series == name]) for name in np.unique(series)}
        return self

    def predict(self, x):
        design, series = self._design(x), x[SPEC["series"]].to_numpy()
        predicted = np.zeros(len(x))
        for name, model in self.models.items():
            rows = series == name
            if rows.any():
                predicted[rows] = model.predict(design[rows])
        return predicted


class SeasonalMean:
    """The mean of the last weeks in each slot of the week."""

    def fit(self, x, y):
        self.calendar = Calendar("naive").fit(x, y)
        return self

    def predict(self, x):
        table = self.calendar.table(x)
        return (table["profile"] * table["level"]).to_numpy()
