"""The nearest class by contrast and roughness: how much pixels differ from the mean, and from their neighbours."""

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")


def rough(images):
    grey = images.astype(float).mean(axis=3)
    steps = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    return np.log(np.column_stack([grey.std(axis=(1, 2)), *steps]) + 1)


model = make_pipeline(StandardScaler(), NearestCentroid()).fit(rough(np.load("/data/train_images.npy")), train["surface"])
test.assign(surface=model.predict(rough(np.load("/data/test_images.npy")))).to_csv("/workspace/submission.csv", index=False)
