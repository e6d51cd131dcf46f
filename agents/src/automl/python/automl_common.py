"""What training shares: the data, the folds, the metric, the result file.

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
from mlgym_model import kind_of, predict, submission_of, take

warnings.filterwarnings("ignore")
DATA = pathlib.Path("/data")
WORK = pathlib.Path(os.environ.get("AUTOML_WORK", "/workspace/automl"))
OUT = WORK / "out"
SPEC = json.loads((DATA / "dataset.json").read_text())
IS_CLASSES = SPEC["task"] == "classification"

# Trials without improvement after which tuning stops.
PATIENCE = 15


class Problem:
    """The data as arrays or tables, the target, and the folds that all candidates share.

    `once` is the number of folds after which every row that can be predicted has been.
    """

    def __init__(self, seed):
        self.seed = seed
        self.kind = kind_of(SPEC)
        train = pd.read_csv(DATA / SPEC["train"])
        test = pd.read_csv(DATA / SPEC["test"])
        target = self.kind.target(train)
        self.ids = test[SPEC["id"]]
        self.classes = None
        if IS_CLASSES:
            self.classes = SPEC["submission"].get("classes") or sorted(target.unique().tolist())
            index = {str(value): position for position, value in enumerate(self.classes)}
            self.y = target.astype(str).map(index).to_numpy()
        else:
            self.y = target.to_numpy(float)
        self.kind.fit(train)
        self.x = self.kind.inputs(train, DATA, "train")
        self.x_test = self.kind.inputs(test, DATA, "test")
        self.once, self.folds = self.kind.folds(self) or self._folds()

    @property
    def count(self):
        """The number of classes; None where a number is predicted."""
        return len(self.classes) if IS_CLASSES else None

    def _folds(self):
        from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

        n = len(self.y)
        splits, repeats = (5, 2) if n < 1000 else (5, 1) if n < 50_000 else (3, 1)
        stratify = IS_CLASSES and np.bincount(self.y).min() >= splits
        kind = RepeatedStratifiedKFold if stratify else RepeatedKFold
        folds = kind(n_splits=splits, n_repeats=repeats, random_state=self.seed)
        return splits, list(folds.split(np.zeros(n), self.y))


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


def in_the_metric(value):
    """Takes a signed score back to the metric's own direction."""
    return float(value if SPEC["goal"] == "maximize" else -value)


def smooth_score(y, predicted):
    """The metric with a little of a smooth one in it, so that ties of a coarse metric are broken sensibly."""
    value = score(y, predicted)
    if SPEC["metric"] in ("accuracy", "f1"):
        p = np.clip(predicted[np.arange(len(y)), y], 1e-6, 1)
        return value + 0.01 * float(np.mean(np.log(p)))
    return value


def error_of(problem, oof, known):
    """The standard error of the metric over the folds' held-out rows; 0 where there are too few of them to tell."""
    values = []
    for _, held_out in problem.folds[: problem.once]:
        rows = held_out[known[held_out]]
        try:
            values.append(score(problem.y[rows], oof[rows]))
        except ValueError:
            # A class that a fold lacks has no score of its own there.
            continue
    values = [value for value in values if np.isfinite(value)]
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def evaluate(problem, make, deadline=None):
    """Fits the model on every fold. Returns the out-of-fold predictions, the test predictions and the score.

    Test predictions are the mean over the folds' models where the kind of data allows it. When time runs short,
    repetitions of the folds are left out; when not even every row can be predicted once, the candidate is given up.
    """
    shape = (len(problem.y), problem.count) if IS_CLASSES else (len(problem.y),)
    total, times, tests, fitted = np.zeros(shape), np.zeros(len(problem.y)), 0.0, 0
    started = time.monotonic()
    for fit, held_out in problem.folds:
        model = make().fit(take(problem.x, fit), problem.y[fit])
        total[held_out] += predict(model, take(problem.x, held_out), problem.count)
        times[held_out] += 1
        if problem.kind.mean_of_folds:
            tests = tests + predict(model, problem.x_test, problem.count)
        fitted += 1
        each = (time.monotonic() - started) / fitted
        if deadline and fitted >= 2 and fitted < problem.once and each * problem.once > deadline:
            raise TimeoutError(f"{problem.once} folds would take {each * problem.once:.0f} s")
        if deadline and fitted % problem.once == 0 and each * (fitted + problem.once) > deadline:
            break
    known = times > 0
    oof = np.full(shape, np.nan)
    oof[known] = total[known] / (times[known, None] if IS_CLASSES else times[known])
    if not problem.kind.mean_of_folds:
        tests, fitted = predict(make().fit(problem.x, problem.y), problem.x_test, problem.count), 1
    return oof, tests / fitted, float(smooth_score(problem.y[known], oof[known]))


def known_rows(oof):
    """The rows that have been predicted."""
    return ~np.isnan(oof).reshape(len(oof), -1).any(axis=1)


def finish(name, problem, oof, test, value, parameters=None):
    """Keeps a candidate's predictions and prints its result as the last line."""
    OUT.mkdir(parents=True, exist_ok=True)
    if not (np.isfinite(value) and np.isfinite(test).all()):
        raise SystemExit("the predictions are not finite")
    known = known_rows(oof)
    np.savez(OUT / f"{name}.npz", oof=oof, test=test)
    raw = in_the_metric(score(problem.y[known], oof[known]))
    error = error_of(problem, oof, known)
    print(json.dumps({"name": name, "score": value, "raw": raw, "error": error, "parameters": parameters or {}}))


def train(name, make, seed, deadline):
    """Cross-validates one candidate and keeps its predictions."""
    problem = Problem(seed)
    oof, test, value = evaluate(problem, make, deadline)
    finish(name, problem, oof, test, value)


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
    finish(name, problem, best["oof"], best["test"], best["value"], best["parameters"])


def write_submission(problem, predicted):
    """Writes predictions in the form that dataset.json asks for."""
    submission_of(SPEC, problem.classes, problem.ids, predicted).to_csv("/workspace/submission.csv", index=False)
