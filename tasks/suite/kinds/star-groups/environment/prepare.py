"""Makes groups of stars that move together, of different densities and shapes, among field stars that belong nowhere."""

import numpy as np
import pandas as pd
from mlgym_data import describe, public, write_labels

rng = np.random.default_rng(1610)
# Where a group is (degrees, degrees, milliarcseconds), how it moves (milliarcseconds a year, twice; km/s), and how many
# of its stars are in the catalogue. Some pairs share their place and differ in motion, or the other way round.
groups = [
    ((130.0, 19.5, 5.4), (-36.0, -12.9, 35.0), 620),
    ((132.5, 20.5, 5.1), (-29.0, -9.5, 28.0), 140),
    ((126.0, 14.0, 4.6), (-14.0, 6.0, 11.0), 300),
    ((128.0, 16.0, 4.9), (-19.0, 10.5, 17.0), 420),
    ((136.0, 12.0, 3.9), (-8.0, -22.0, -6.0), 90),
    ((138.0, 24.0, 6.2), (-44.0, 3.0, 6.0), 230),
]
frames = []
for index, (place, motion, size) in enumerate(groups):
    # A shape of its own: one long axis in some direction of the six, the others short.
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    lengths = np.exp(rng.normal(-0.35, 0.45, 6))
    lengths[0] *= 2.2
    scale = np.array([1.5, 1.3, 0.22, 2.2, 2.2, 2.6]) * rng.uniform(0.7, 1.2)
    shape = (basis * lengths) @ basis.T
    tails = np.sqrt(rng.chisquare(8, size) / 8)[:, None]
    members = np.array(place + motion) + (rng.normal(size=(size, 6)) / tails) @ shape * scale
    frames.append((members, index))
# A stream: a bent line of stars, whose motion turns along it.
size = 360
along = rng.uniform(-1, 1, size)
stream = np.column_stack(
    [133 + 8 * along, 21 - 7 * along**2 + 2 * along, 4.3 + 0.3 * along, 6 + 6 * along, 14 - 5 * along**2, 44 + 6 * along]
)
frames.append((stream + rng.normal(size=(size, 6)) * np.array([0.6, 0.5, 0.15, 1.3, 1.3, 1.8]), len(groups)))
# The field: stars of all places and motions, which no group has.
size = 240
field = np.column_stack([rng.uniform(119, 145, size), rng.uniform(7, 29, size), rng.gamma(4, 1.1, size) + 0.8])
drift = rng.normal([-14, -4, 15], [18, 13, 22], (size, 3))
frames.append((np.hstack([field, drift]), -1))
points = np.vstack([frame for frame, _ in frames])
group = np.concatenate([np.full(len(frame), index) for frame, index in frames])
points += rng.normal(size=points.shape) * np.array([0.01, 0.01, 0.12, 0.4, 0.4, 0.9])
names = ["right_ascension", "declination", "parallax", "motion_ra", "motion_dec", "velocity"]
table = pd.DataFrame(points, columns=names).round(3)
table["parallax"] = table["parallax"].clip(0.05)
# Two columns that say nothing about the groups, as catalogues have.
table["magnitude"] = (10 + 4 * rng.beta(3, 2, len(table))).round(2)
table["colour"] = (0.4 + 0.25 * (table["magnitude"] - 10) + rng.normal(0, 0.25, len(table))).round(3)
order = rng.permutation(len(table))
table, group = table.iloc[order].reset_index(drop=True), group[order]
table.insert(0, "id", np.arange(len(table)))
# Field stars are in nobody's group, so where a submission puts them does not count.
split = np.where(group < 0, "field", np.where(rng.random(len(table)) < 0.3, "validation", "test"))
table.to_csv(public() / "stars.csv", index=False)
table[["id"]].assign(group=0).to_csv(public() / "sample_submission.csv", index=False)
write_labels(table["id"], group, split)
describe(
    kind="clustering",
    task="clustering",
    metric="adjusted_rand",
    goal="maximize",
    train="stars.csv",
    test="stars.csv",
    id="id",
    submission={"columns": ["group"], "prediction": "group"},
)
