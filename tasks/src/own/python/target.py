"""What a target is, told from its values: classes or numbers, and why."""

import difflib

import numpy as np
import pandas as pd
from metrics import FOR_CLASSES, FOR_VALUES
from table import TRUTH, Unreadable, clean, notation, numbers

# Integers with no more different values than this are classes.
MOST_INTEGER_CLASSES = 20
# Classes need so many rows each on average, for integers to be taken for them.
ROWS_A_CLASS = 10
# More classes than this cannot be told apart by what is built here.
MOST_CLASSES = 200
# A number is asked for of a target that cannot be read in more rows than this: it is written in a way that is not known.
MOST_UNREAD = 0.2
# Words for the class that is looked for.
POSITIVE = {"yes", "y", "true", "t", "positive", "pos", "1", "ja", "oui", "si", "sí"}
# Words that are remembered one by one.
MOST_WORDS = 20_000


def find(name, columns, file):
    """Checks that a column exists; offers the nearest names where it does not."""
    if name in columns:
        return
    lower = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    shown = [lower[key] for key in near]
    known = ", ".join(columns[:12]) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")
    hint = f"did you mean {' or '.join(map(repr, shown))}? " if shown else ""
    raise Unreadable(f"{file} has no column {name!r}: {hint}it has {known}")


class Seen:
    """A target as it streams by: each row's number, and each row's word by its position in a short list."""

    def __init__(self, delimiter=None):
        self.values, self.codes, self.words = [], [], {}
        self.delimiter, self.notation = delimiter, None

    def add(self, column):
        # Most targets have few different values: each is looked at once.
        codes, found = pd.factorize(column, use_na_sentinel=False)
        found = pd.Series(found)
        if pd.api.types.is_numeric_dtype(found):
            values = numbers(found)
            whole = values.dropna()
            is_whole = bool((whole == whole.round()).all()) and (whole.empty or whole.abs().max() < 2**53)
            found = values.map(lambda v: None if np.isnan(v) else str(int(v)) if is_whole else repr(float(v)))
        found = clean(found.astype("str"))
        if self.notation is None:
            # As the first rows are written.
            self.notation = notation(found, self.delimiter)
        self.values.append(numbers(found, *self.notation).to_numpy()[codes])
        places = np.full(len(found), -1, np.int32)
        for index, word in enumerate(found):
            if pd.isna(word):
                continue
            if word not in self.words and len(self.words) < MOST_WORDS:
                self.words[word] = len(self.words)
            places[index] = self.words.get(word, -2)
        self.codes.append(places[codes])

    def done(self):
        empty = not self.values
        self.values = np.zeros(0) if empty else np.concatenate(self.values)
        self.codes = np.zeros(0, np.int32) if empty else np.concatenate(self.codes)
        return self


def decide(seen, name, asked, metric):
    """Returns ("classification" | "regression", why). What cannot be either is refused with what to do."""
    known = seen.codes != -1
    rows, words = int(known.sum()), len(seen.words)
    if rows == 0:
        raise Unreadable(f"the target {name!r} is missing in every row: name another column with --target")
    wrong = {"classification": FOR_VALUES, "regression": FOR_CLASSES}.get(asked, ())
    if metric in wrong:
        right = FOR_CLASSES if asked == "classification" else FOR_VALUES
        raise Unreadable(f"--metric {metric} does not go with --task {asked}: choose one of {', '.join(right)}")
    if asked is None and metric in FOR_CLASSES + FOR_VALUES:
        # Whoever names a metric has said what the target is.
        kind = "classification" if metric in FOR_CLASSES else "regression"
        return _checked(kind, seen, name), f"because the metric is {metric}"
    if asked is not None:
        return _checked(asked, seen, name), "because --task says so"
    numeric = ~np.isnan(seen.values[known])
    share = float(numeric.mean())
    distinct = f"{words:,}" if words < MOST_WORDS else f"more than {MOST_WORDS:,}"
    if share == 1.0:
        values = seen.values[known]
        whole = bool((values == np.round(values)).all())
        if words == 2:
            return _checked("classification", seen, name), f"because {name!r} has two different values"
        few = whole and words <= MOST_INTEGER_CLASSES and rows >= ROWS_A_CLASS * words
        if few:
            return _checked("classification", seen, name), (
                f"because {name!r} has only {words} different whole numbers in {rows:,} rows (--task regression overrides)"
            )
        kind = "whole numbers" if whole else "numbers"
        return _checked("regression", seen, name), f"because {name!r} holds {distinct} different {kind}"
    if share >= 0.9:
        word = next(word for word in seen.words if np.isnan(numbers(pd.Series([word], dtype="str"), *seen.notation).iloc[0]))
        raise Unreadable(
            f"the target {name!r} holds numbers and, in {int((~numeric).sum()):,} of {rows:,} rows, words such as {word!r}: "
            "mend those rows, or say --task classification or --task regression (which leaves them out)"
        )
    if words > MOST_CLASSES or words > rows / 2:
        raise Unreadable(
            f"the target {name!r} holds {distinct} different words in {rows:,} rows, as {next(iter(seen.words))!r}, which is neither "
            "classes nor numbers that can be read: name another column with --target"
        )
    return _checked("classification", seen, name), f"because {name!r} holds {words} different words"


def _checked(kind, seen, name):
    known = seen.codes != -1
    if kind == "regression":
        values = seen.values[known]
        if np.isnan(values).all():
            raise Unreadable(f"the target {name!r} holds words and cannot be a number: say --task classification")
        missed = float(np.isnan(values).mean())
        if missed > MOST_UNREAD:
            place = int(np.flatnonzero(known)[np.isnan(values)][0])
            word = next((word for word, code in seen.words.items() if code == seen.codes[place]), "?")
            raise Unreadable(
                f"the target {name!r} cannot be read as a number in {missed:.0%} of its rows, as in {word!r}: write all of them "
                "alike, or leave those rows out of the file"
            )
        values = values[~np.isnan(values)]
        if values.min() == values.max():
            raise Unreadable(f"the target {name!r} is {values[0]:g} in every row: there is nothing to learn; name another column")
        return kind
    if (seen.codes == -2).any() or len(seen.words) > MOST_CLASSES:
        count = f"more than {MOST_WORDS:,}" if (seen.codes == -2).any() else f"{len(seen.words):,}"
        raise Unreadable(
            f"the target {name!r} has {count} different values; {MOST_CLASSES} classes are the most: say --task regression, or "
            "put values together"
        )
    if len(seen.words) == 1:
        word = next(iter(seen.words))
        raise Unreadable(f"the target {name!r} is {word!r} in every row: there is nothing to learn; name another column")
    counts = np.bincount(seen.codes[known], minlength=len(seen.words))
    rare = [word for word, place in seen.words.items() if counts[place] < 2]
    if rare:
        shown = ", ".join(map(repr, rare[:5])) + (f" and {len(rare) - 5} more" if len(rare) > 5 else "")
        verb = "classes have" if len(rare) > 1 else "class has"
        raise Unreadable(
            f"the target {name!r}'s {verb} one row only ({shown}), and a class needs two, to learn from and to be tested on: "
            "leave those rows out, put classes together, or say --task regression"
        )
    return kind


def classes_of(words):
    """The classes in the order that models use: (as they are stored, as the person wrote them, position by word).

    Stored labels are what reading a CSV makes of them: whole numbers without a point, truth values with a capital.
    Two ways to write one number, as in 1 and 1.0, are one class.
    """
    values = numbers(pd.Series(list(words), dtype="str"))
    order = None
    if all(word.lower() in TRUTH for word in words):
        stored = {word: word.capitalize() for word in words}
    elif values.notna().all():
        whole = bool((values == values.round()).all()) and values.abs().max() < 2**53
        stored = {word: str(int(value)) if whole else str(float(value)) for word, value in zip(words, values)}
        order = float
    else:
        stored = {word: word for word in words}
    written = {}
    for word in words:
        written.setdefault(stored[word], word)
    labels = sorted(written, key=order)
    place = {label: index for index, label in enumerate(labels)}
    return labels, [written[label] for label in labels], {word: place[stored[word]] for word in words}


def looked_for(labels, counts):
    """Which of two classes a metric of one class is about: the one whose name says so, else the rarer."""
    named = [index for index, label in enumerate(labels) if str(label).lower() in POSITIVE]
    return named[0] if len(named) == 1 else int(counts[1] <= counts[0])
