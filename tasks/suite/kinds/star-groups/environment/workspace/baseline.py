"""Three groups by k-means on the columns as they are."""

import pandas as pd
from sklearn.cluster import KMeans

stars = pd.read_csv("/data/stars.csv")
group = KMeans(3, n_init=10, random_state=0).fit_predict(stars.drop(columns="id"))
stars[["id"]].assign(group=group).to_csv("/workspace/submission.csv", index=False)
