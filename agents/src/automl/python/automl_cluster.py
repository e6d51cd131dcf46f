"""Groups of rows that nobody has labelled: the algorithms, and the index that chooses between them.

There is no target, so nothing here is measured against the truth. What stands in for cross-validation is an internal
index (`Judge`): how well groups found on one part of the rows fit rows that were held out, and whether two parts of
the rows agree on the groups. It is honest about what it is: an agreement of the data with itself, which can be high
for groups that nobody wanted.
"""

import numpy as np
from automl_common import columns_of

# Groups that are looked for at most, and rows that quadratic algorithms are fitted on; the others follow their neighbours.
MOST_GROUPS = 15
MOST_ROWS = 2500


class Space:
    """Turns a table into numbers on one scale: gaps filled, long tails drawn in, categories as their shares.

    `drop` columns that a first look found to say nothing about the groups are left out.
    """

    def fit(self, x):
        from sklearn.preprocessing import PowerTransformer

        numbers, few, _ = columns_of(x)
        self.numbers, self.few = numbers, few
        self.middle = x[numbers].median()
        table = x[numbers].fillna(self.middle)
        self.skewed = [name for name in numbers if table[name].nunique() > 10 and abs(table[name].skew()) > 1.5]
        self.power = PowerTransformer().fit(table[self.skewed].to_numpy(float)) if self.skewed else None
        self.words = {name: x[name].astype(str).unique().tolist() for name in few}
        raw = self._raw(x)
        self.mean, self.scale = raw.mean(axis=0), raw.std(axis=0)
        self.scale[self.scale < 1e-12] = 1.0
        return self

    def _raw(self, x):
        table = x[self.numbers].fillna(self.middle).astype(float)
        columns = [table[[name for name in self.numbers if name not in self.skewed]].to_numpy()]
        if self.skewed:
            columns.append(self.power.transform(table[self.skewed].to_numpy(float)))
        for name in self.few:
            columns.append((x[name].astype(str).to_numpy()[:, None] == np.array(self.words[name])).astype(float))
        return np.hstack(columns)

    def transform(self, x):
        return (self._raw(x) - self.mean) / self.scale


class Grouping:
    """What all algorithms share: a space, the groups of the fitted rows, and the groups of rows seen later."""

    def __init__(self, groups):
        self.groups = groups

    def fit(self, points):
        self.labels_ = self._fit(points)
        return self

    def predict(self, points):
        """The groups of other rows: by default that of the nearest fitted rows."""
        return self.nearest.predict(points)

    def _follow(self, points, labels):
        from sklearn.neighbors import KNeighborsClassifier

        known = labels >= 0
        self.nearest = KNeighborsClassifier(min(5, int(known.sum()))).fit(points[known], labels[known])
        return np.where(known, labels, self.nearest.predict(points))

    def _sample(self, points):
        """Row numbers for an algorithm that cannot have them all."""
        if len(points) <= MOST_ROWS:
            return np.arange(len(points))
        return np.sort(np.random.default_rng(0).choice(len(points), MOST_ROWS, replace=False))

    def _on_sample(self, points, algorithm):
        rows = self._sample(points)
        labels = np.unique(algorithm.fit_predict(points[rows]), return_inverse=True)[1] if len(rows) else rows
        self._follow(points[rows], labels)
        if len(rows) == len(points):
            return labels
        return self.nearest.predict(points)


class Means(Grouping):
    """k-means: round groups of one size."""

    def _fit(self, points):
        from sklearn.cluster import KMeans

        self.model = KMeans(self.groups, n_init=8, random_state=0).fit(points)
        return self.model.labels_

    def predict(self, points):
        return self.model.predict(np.ascontiguousarray(points))


class Mixture(Grouping):
    """A Gaussian mixture: groups of any size, stretched in any direction (`full`), or along the axes (`diag`)."""

    def __init__(self, groups, shape="full"):
        self.groups, self.shape = groups, shape

    def _fit(self, points):
        from sklearn.mixture import GaussianMixture

        self.model = GaussianMixture(self.groups, covariance_type=self.shape, n_init=2, reg_covar=1e-3, random_state=0)
        return self.model.fit_predict(points)

    def predict(self, points):
        return self.model.predict(points)


class Agglomerated(Grouping):
    """Groups joined from the nearest pairs upwards."""

    def __init__(self, groups, linkage="ward"):
        self.groups, self.linkage = groups, linkage

    def _fit(self, points):
        from sklearn.cluster import AgglomerativeClustering

        return self._on_sample(points, AgglomerativeClustering(self.groups, linkage=self.linkage))


class Spectral(Grouping):
    """Groups that hang together by their nearest neighbours, whatever their shape."""

    def __init__(self, groups, neighbours=12):
        self.groups, self.neighbours = groups, neighbours

    def _fit(self, points):
        from sklearn.cluster import SpectralClustering

        count = min(self.neighbours, len(points) - 1)
        model = SpectralClustering(
            self.groups, affinity="nearest_neighbors", n_neighbors=count, assign_labels="cluster_qr", random_state=0
        )
        return self._on_sample(points, model)


class Density(Grouping):
    """HDBSCAN: dense regions of any shape and number; `groups` is the least size of one in thousandths of the rows."""

    def _fit(self, points):
        from sklearn.cluster import HDBSCAN

        rows = self._sample(points)
        least = max(5, round(len(rows) * self.groups / 1000))
        labels = HDBSCAN(min_cluster_size=least, min_samples=min(least, 10), copy=True).fit_predict(points[rows])
        if labels.max() < 1:
            raise ValueError("HDBSCAN finds fewer than two groups")
        followed = self._follow(points[rows], labels)
        return followed if len(rows) == len(points) else self.nearest.predict(points)
