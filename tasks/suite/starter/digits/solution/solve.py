"""A support vector machine with a Gaussian kernel on the pixels."""

import numpy as np
import pandas as pd
from sklearn.svm import SVC

train, test = pd.read_csv("/data/train.csv"), pd.read_csv("/data/test.csv")
model = SVC(C=10.0, gamma=0.0008)
model.fit(np.load("/data/train_images.npy").reshape(len(train), -1).astype(float), train["digit"])
predicted = model.predict(np.load("/data/test_images.npy").reshape(len(test), -1).astype(float))
test.assign(digit=predicted).to_csv("/workspace/submission.csv", index=False)
