"""What each column is, and how it is written so that training and prediction read the same."""

import numpy as np
import pandas as pd
from table import clean, numbers

# A column of numbers may hold so few words; they count as missing.
STRAY_SHARE = 0.02


def describe(column, used):
    """Decides by the training rows what a column is; returns its entry, with a reason where it is left out."""
    values = column[used]
    known = values.dropna()
    entry = {"name": column.name}
    if known.empty:
        return entry | {"kind": "none", "why": "it is empty in every row that is learnt from"}
    if pd.api.types.is_numeric_dtype(values):
        return entry | _number(numbers(values), ".")
    for decimal in (".", ","):
        read = numbers(known, decimal)
        stray = known[read.isna()]
        if stray.empty or (len(stray) <= STRAY_SHARE * len(known) and stray.nunique() <= 5):
            entry |= _number(read, decimal)
            if len(stray):
                entry["stray"] = sorted(set(stray))[:5]
            return entry
    if len(known) > LEAST_FOR_NAMES and known.nunique() == len(known) and known.str.len().mean() < 40 and not _dates(known):
        return entry | {"kind": "none", "why": "it holds a different word in every row, as names and numbers of records do"}
    return entry | {"kind": "category"}


LEAST_FOR_NAMES = 50


def _dates(known):
    return known.head(200).str.match(r"\d{4}-\d{2}-\d{2}").mean() > 0.95


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
            read = numbers(values, entry.get("decimal", "."))
            whole = read.dropna()
            # Whole numbers without a point, so that a column reads the same with and without gaps.
            if len(whole) and (whole == whole.round()).all() and whole.abs().max() < 2**53:
                read = read.round().astype("Int64")
            columns[entry["name"]] = read
        else:
            if pd.api.types.is_numeric_dtype(values):
                values = values.map(lambda v: None if pd.isna(v) else str(int(v)) if float(v).is_integer() else repr(float(v)))
            columns[entry["name"]] = clean(values)
    return pd.DataFrame(columns, index=table.index)


def is_float(values):
    """Tells whether a column of a table read back from CSV holds numbers."""
    return np.issubdtype(values.dtype, np.number)
