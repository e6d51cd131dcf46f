"""Compares how much ink there is in each quarter of the image with the mean of each digit."""

import numpy as np
import pandas as pd


def quarters(images):
    return images.reshape(-1, 2, 4, 2, 4).sum(axis=(2, 4)).reshape(-1, 4).astype(float)


train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")
ink = quarters(np.load("/data/train_images.npy"))
means = np.stack([ink[train["digit"] == digit].mean(axis=0) for digit in range(10)])
distances = ((quarters(np.load("/data/test_images.npy"))[:, None] - means) ** 2).sum(axis=2)
test.assign(digit=distances.argmin(axis=1)).to_csv("/workspace/submission.csv", index=False)
