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
# Numbers beyond this are as large as any; a gap is a number that no column has.
LARGEST, GAP = 1e18, -2e18
# Rows beside those of the commonest class that both halves must have.
LEAST_OF_CLASS = 5


def telling(features, truth, classes, rng, groups=None):
    """Names of columns that tell the target of rows that they were not fitted on, by a tree on that column alone. `classes`
    says whether the target is one of several classes. Rows of one of the `groups` are on one side."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    if len(truth) < LEAST_ROWS:
        return []
    some = rng.permutation(len(truth))[:MOST_ROWS]
    features, truth = features.iloc[some], truth[some]
    fit = _half(len(truth), None if groups is None else groups[some])
    # One group, or one beside a large one, is no half.
    if min(fit.sum(), (~fit).sum()) < LEAST_ROWS / 4:
        return []
    if classes and min(_second(truth[fit]), _second(truth[~fit])) < LEAST_OF_CLASS:
        return []
    if classes:
        model, tells = DecisionTreeClassifier(min_samples_leaf=2, max_leaf_nodes=256, random_state=0), _tells_class
    else:
        model, tells = DecisionTreeRegressor(random_state=0), _tells_number
    found = []
    for name in features.columns:
        values = _codes(features[name], fit)
        told = model.fit(values[fit, None], truth[fit]).predict(values[~fit, None])
        if tells(truth[~fit], told, values[~fit]):
            found.append(name)
    return found


def _half(count, groups):
    """Which rows are fitted on: the first half, or those of half the groups."""
    if groups is None:
        return np.arange(count) < count // 2
    known = pd.unique(groups)
    return np.isin(groups, known[: len(known) // 2])


def _second(truth):
    """The rows of the second class by size."""
    counts = np.bincount(truth)
    return np.sort(counts)[-2] if len(counts) > 1 else 0


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
    # Trees count in 32 bits and know no gaps.
    return np.where(np.isnan(numbers), GAP, np.clip(numbers, -LARGEST, LARGEST))


def _tells_class(truth, told, values):
    right = np.mean(truth == told)
    commonest = np.bincount(truth).max() / len(truth)
    return right >= TOLD and 1 - right <= ERRORS * (1 - commonest)


def _tells_number(truth, told, values):
    spread = np.sum((truth - truth.mean()) ** 2)
    if spread <= 0:
        return False
    tree = 1 - np.sum((truth - told) ** 2) / spread
    known = np.abs(values) < LARGEST
    straight = 0.0
    if known.mean() > 0.5 and np.std(values[known]) > 0 and np.std(truth[known]) > 0:
        straight = np.corrcoef(values[known], truth[known])[0, 1] ** 2
    return max(tree, straight) >= VARIANCE
