"""What each column is, and how it is written so that training and prediction read the same."""

import numpy as np
import pandas as pd
from table import clean, notation, numbers

# A column of numbers may hold so few words; they count as missing.
STRAY_SHARE = 0.02
# And so many, where they are a few placeholders without a digit, as in "k.A." or "-".
PLACEHOLDER_SHARE, MOST_PLACEHOLDERS = 0.3, 5


def describe(column, used, delimiter=None):
    """Decides by the training rows what a column is; returns its entry, with a reason where it is left out."""
    values = column[used]
    known = values.dropna()
    entry = {"name": column.name}
    if known.empty:
        return entry | {"kind": "none", "why": "it is empty in every row that is learnt from"}
    if pd.api.types.is_numeric_dtype(values):
        return entry | _number(numbers(values), ".")
    written = notation(known, delimiter)
    for decimal, group in dict.fromkeys([written, (".", ""), (",", "")]):
        read = numbers(known, decimal, group)
        stray = known[read.isna()]
        few = stray.nunique() <= MOST_PLACEHOLDERS
        placeholders = len(stray) <= PLACEHOLDER_SHARE * len(known) and not stray.str.contains(r"\d").any()
        if stray.empty or (few and (len(stray) <= STRAY_SHARE * len(known) or placeholders)):
            entry |= _number(read, decimal)
            if group and entry["kind"] == "number":
                entry["group"] = group
            if len(stray):
                entry["stray"] = sorted(set(stray))[:5]
            return entry
    day_first = _day_first(known)
    if day_first is not None:
        return entry | {"kind": "date", "day_first": day_first}
    if len(known) > LEAST_FOR_NAMES and known.nunique() == len(known) and known.str.len().mean() < 40 and not _dates(known):
        return entry | {"kind": "none", "why": "it holds a different word in every row, as names and numbers of records do"}
    if _dates(known):
        # Stored as they are written, which is a date wherever they are read.
        return entry | {"kind": "category", "moments": True}
    return entry | {"kind": "category"}


LEAST_FOR_NAMES = 50


def _dates(known):
    return known.head(200).str.match(r"\d{4}-\d{2}-\d{2}").mean() > 0.95


def _day_first(known):
    """Whether dates like 01.03.2022 have their day first; None where a column holds others, or none."""
    found = known.str.extract(r"^(\d{1,2})[./-](\d{1,2})[./-]\d{4}(?!\d)").apply(pd.to_numeric)
    if found.isna().any(axis=None):
        return None
    for day_first in (True, False):
        day, month = (found[0], found[1]) if day_first else (found[1], found[0])
        if day.between(1, 31).all() and month.between(1, 12).all():
            # Points stand in dates that begin with the day; where bars do, both readings may be right.
            return day_first if day_first is False or (day > 12).any() or known.str.contains(".", regex=False).any() else False
    return None


def _number(read, decimal):
    if read.dropna().nunique() <= 1 and read.notna().all():
        return {"kind": "none", "why": "it has the same value in every row that is learnt from"}
    return {"kind": "number", "decimal": decimal}


def cast(table, entries):
    """A table's columns as they are stored: numbers as numbers, words as words, in the order of the entries."""
    columns = {}
    for entry in entries:
        if entry["kind"] == "none":
            continue
        values = table[entry["name"]]
        if entry["kind"] == "number":
            read = numbers(values, entry.get("decimal", "."), entry.get("group", ""))
            whole = read.dropna()
            # Whole numbers without a point, so that a column reads the same with and without gaps.
            if len(whole) and (whole == whole.round()).all() and whole.abs().max() < 2**53:
                read = read.round().astype("Int64")
            columns[entry["name"]] = read
        elif entry["kind"] == "date":
            when = pd.to_datetime(clean(values), errors="coerce", format="mixed", dayfirst=entry["day_first"])
            columns[entry["name"]] = when.dt.strftime("%Y-%m-%d %H:%M:%S")
        else:
            if pd.api.types.is_numeric_dtype(values):
                values = values.map(lambda v: None if pd.isna(v) else str(int(v)) if float(v).is_integer() else repr(float(v)))
            columns[entry["name"]] = clean(values)
    return pd.DataFrame(columns, index=table.index)


def is_float(values):
    """Tells whether a column of a table read back from CSV holds numbers."""
    return np.issubdtype(values.dtype, np.number)
