"""Which rows are learnt from, which are validated on, and which are hidden for the test."""

import numpy as np
import pandas as pd
from table import Unreadable, numbers

UNUSED, TRAIN, VALIDATION, TEST = 0, 1, 2, 3
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
# More hidden rows make a score hardly more certain.
MOST_TEST, MOST_VALIDATION = 50_000, 20_000
LEAST_ROWS = 20


def sizes(rows):
    """How many rows are for the test and for the validation."""
    return min(round(TEST_SHARE * rows), MOST_TEST), min(max(2, round(VALIDATION_SHARE * rows)), MOST_VALIDATION)


def at_random(eligible, classes, rng):
    """Splits rows at random, each class alike where there are classes. Every class keeps a row to learn from, and has
    one in the test."""
    part = np.zeros(len(eligible), np.int8)
    rows = np.flatnonzero(eligible)
    test, validation = sizes(len(rows))
    groups = [rows] if classes is None else [rows[classes[rows] == index] for index in np.unique(classes[rows])]
    for group in groups:
        group = rng.permutation(group)
        share = len(group) / len(rows)
        tested = min(max(1, round(test * share)), len(group) - 1)
        validated = min(round(validation * share), len(group) - 1 - tested)
        part[group[:tested]] = TEST
        part[group[tested : tested + validated]] = VALIDATION
        part[group[tested + validated :]] = TRAIN
    return part


def by_time(eligible, when, name):
    """The last rows are the test, those before them the validation. Rows of one moment stay together."""
    part = np.zeros(len(eligible), np.int8)
    moments = np.sort(when[eligible])
    if len(np.unique(moments)) < 3:
        raise Unreadable(f"the time column {name!r} has fewer than three different moments: leave --time out")
    test, validation = sizes(len(moments))
    begin = _boundary(moments, len(moments) - test)
    middle = _boundary(moments[moments < begin], max(1, int((moments < begin).sum()) - validation))
    part[eligible & (when >= begin)] = TEST
    part[eligible & (when < begin) & (when >= middle)] = VALIDATION
    part[eligible & (when < middle)] = TRAIN
    return part


def _boundary(moments, position):
    """The moment at a position, moved so that there is something before it."""
    moment = moments[min(position, len(moments) - 1)]
    later = moments[moments > moments[0]]
    return moment if moment > moments[0] or not len(later) else later[0]


def by_group(eligible, group, name, rng):
    """Whole groups are tested, validated or learnt from, until each part has about its share."""
    part = np.zeros(len(eligible), np.int8)
    names, place, counts = np.unique(group[eligible], return_inverse=True, return_counts=True)
    if len(names) < 3:
        raise Unreadable(f"the group column {name!r} has {len(names)} different values, and three parts are needed: leave --group out")
    rows = int(eligible.sum())
    test, validation = sizes(rows)
    kind = np.full(len(names), TRAIN, np.int8)
    taken = {TEST: 0, VALIDATION: 0}
    for index in rng.permutation(len(names)):
        for part_of, wanted in ((TEST, test), (VALIDATION, validation)):
            fits = taken[part_of] == 0 or taken[part_of] + counts[index] <= wanted
            if taken[part_of] < wanted and fits and (kind == TRAIN).sum() > 1:
                kind[index] = part_of
                taken[part_of] += counts[index]
                break
    part[np.flatnonzero(eligible)] = kind[place]
    return part


def moments(column, name):
    """Reads a column as times: numbers as they are, else dates. Rows without one cannot be placed."""
    values = numbers(column)
    if values.notna().sum() >= 0.99 * column.notna().sum():
        return values
    when = pd.to_datetime(column, errors="coerce", format="mixed", dayfirst=_day_first(column))
    if when.notna().sum() < 0.99 * column.notna().sum():
        bad = column[when.isna() & column.notna()].iloc[0]
        raise Unreadable(f"the time column {name!r} holds {bad!r}, which is neither a date nor a number: leave --time out, or mend it")
    seconds = (when.dt.tz_localize(None) if when.dt.tz is not None else when).astype("datetime64[s]").astype("int64")
    return seconds.astype(float).mask(when.isna())


def _day_first(column):
    found = column.dropna().str.extract(r"^(\d{1,2})[./-](\d{1,2})[./-]\d{4}")
    return bool((pd.to_numeric(found[0], errors="coerce") > 12).any())


def thin(part, most, rng):
    """Leaves training rows out at random where there are more than can be used."""
    train = np.flatnonzero(part == TRAIN)
    if len(train) > most:
        part[rng.choice(train, len(train) - most, replace=False)] = UNUSED
    return len(train) - int((part == TRAIN).sum())
