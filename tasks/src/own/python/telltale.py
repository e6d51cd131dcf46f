"""Columns that tell the target by themselves: often they are only known once the target is."""

import numpy as np
import pandas as pd

# Rows that are looked at.
MOST_ROWS = 4000
# Fewer say nothing.
LEAST_ROWS = 40
# The share of the rows whose class a column must tell, and of the errors of always naming the commonest class that it may make.
TOLD, ERRORS = 0.99, 0.05
# The share of a number's variance that a column must tell.
VARIANCE = 0.999


def telling(features, truth, classes, rng):
    """Names of columns that tell the target of rows that they were not fitted on, by a tree on that column alone. `classes`
    says whether the target is one of several classes."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if len(truth) < LEAST_ROWS:
        return []
    some = rng.permutation(len(truth))[:MOST_ROWS]
    features, truth = features.iloc[some], truth[some]
    fit, held = np.arange(len(truth)) < len(truth) // 2, np.arange(len(truth)) >= len(truth) // 2
    make = DecisionTreeClassifier if classes else DecisionTreeRegressor
    found = []
    for name in features.columns:
        values = _codes(features[name], fit)
        model = make(min_samples_leaf=2 if classes else 1, max_leaf_nodes=None if not classes else 256, random_state=0)
        told = model.fit(values[fit], truth[fit]).predict(values[held])
        if (_tells_class if classes else _tells_number)(truth[held], told, values[held][:, 0]):
            found.append(name)
    return found


def _codes(column, fit):
    """A column as numbers: words by how often they occur in the rows to fit on, so that unknown ones are unknown."""
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.astype("Float64").to_numpy(float, na_value=np.nan)
    else:
        when = pd.to_datetime(column, errors="coerce", format="ISO8601", utc=True)
        if column.notna().any() and when[column.notna()].notna().all():
            numbers = np.where(when.notna(), when.astype("int64"), np.nan).astype(float)
        else:
            order = {word: code for code, word in enumerate(column[fit].value_counts().index)}
            numbers = column.map(order).to_numpy(float)
    return np.nan_to_num(numbers, nan=-1e18, posinf=1e18, neginf=-1e18)[:, None]


def _tells_class(truth, told, _):
    right = np.mean(truth == told)
    commonest = np.bincount(truth).max() / len(truth)
    return right >= TOLD and 1 - right <= ERRORS * (1 - commonest)


def _tells_number(truth, told, values):
    spread = np.sum((truth - truth.mean()) ** 2)
    if spread <= 0:
        return False
    tree = 1 - np.sum((truth - told) ** 2) / spread
    straight = np.corrcoef(values, truth)[0, 1] ** 2 if np.std(values) > 0 else 0.0
    return max(tree, straight) >= VARIANCE
