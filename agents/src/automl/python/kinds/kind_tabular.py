"""Tables: each row is a case, columns are numbers, words or dates."""

import numpy as np
import pandas as pd
from mlgym_model import Kind


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


class Data(Kind):
    """Turns tables as they are stored into columns of numbers and words."""

    def fit(self, table):
        table = self.without_id(table)
        dates = [name for name in table.columns if looks_like_dates(table[name])]
        self.origin = {name: pd.to_datetime(table[name], errors="coerce").min() for name in dates}
        return self

    def inputs(self, table, directory=None, part="test"):
        return split_dates(self.without_id(table), self.origin)

    def facts(self, problem):
        numbers, few, many = columns_of(problem.x)
        facts = {"numbers": len(numbers), "few": len(few), "many": len(many), "features": problem.x.shape[1]}
        return facts | {"missing": float(problem.x.isna().mean().mean())}


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
