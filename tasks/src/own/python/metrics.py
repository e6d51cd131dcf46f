"""Scores predictions, for graders, checks and reports alike.

Classes are given as their positions, predictions as a matrix of probabilities with a column for each class.
"""

import numpy as np

MAXIMIZED = {"log_loss": False, "roc_auc": True, "accuracy": True, "f1": True, "rmse": False, "mae": False, "r2": True}
BOUNDED = {"roc_auc", "accuracy", "f1"}
FOR_CLASSES = ("log_loss", "roc_auc", "accuracy", "f1")
FOR_VALUES = ("rmse", "mae", "r2")


def of_classes(truth, probabilities):
    """All metrics for classes. F1 is of the second of two classes, and the mean over classes that occur of more."""
    from sklearn import metrics

    count = probabilities.shape[1]
    probabilities = np.clip(np.asarray(probabilities, float), 1e-6, 1 - 1e-6)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    guessed = probabilities.argmax(axis=1)
    present = [index for index in range(count) if (truth == index).any()]
    if count == 2:
        f1 = metrics.f1_score(truth, guessed, pos_label=1, average="binary", zero_division=0.0)
    else:
        f1 = metrics.f1_score(truth, guessed, labels=present, average="macro", zero_division=0.0)
    return {
        "log_loss": float(-np.mean(np.log(probabilities[np.arange(len(truth)), truth]))),
        "roc_auc": _area(truth, probabilities, present),
        "accuracy": float(np.mean(guessed == truth)),
        "f1": float(f1),
    }


def _area(truth, probabilities, present):
    """The area under the curve, for more than two classes the mean over those that occur of each against the rest."""
    from sklearn import metrics

    if len(present) < 2:
        return 0.5
    if probabilities.shape[1] == 2:
        return float(metrics.roc_auc_score(truth, probabilities[:, 1]))
    return float(np.mean([metrics.roc_auc_score(truth == index, probabilities[:, index]) for index in present]))


def of_values(truth, predicted):
    """All metrics for numbers."""
    error = np.asarray(predicted, float) - np.asarray(truth, float)
    spread = float(np.sum((truth - np.mean(truth)) ** 2))
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": float(1 - np.sum(error**2) / spread) if spread > 0 else 0.0,
    }
