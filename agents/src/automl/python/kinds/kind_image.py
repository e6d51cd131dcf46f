"""Small images with classes: an array beside the table, one image a row."""

import pathlib

import numpy as np
from mlgym_model import Kind


class Data(Kind):
    """Finds the images of a table's rows: in the directory that the table comes from, or given instead of a table."""

    def inputs(self, table, directory=None, part="test"):
        if isinstance(table, np.ndarray):
            return table
        return np.load(pathlib.Path(directory) / self.spec[f"{part}_images"])

    def facts(self, problem):
        numbers = int(np.prod(problem.x.shape[1:]))
        return {"numbers": numbers, "few": 0, "many": 0, "features": numbers, "missing": 0.0}


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
        return self

    @property
    def predict_proba(self):
        return self.model.predict_proba

    def predict(self, x):
        return self.model.predict(x)

    def decision_function(self, x):
        return self.model.decision_function(x)
