"""Makes a citation network: papers of seven topics that mostly cite their own topic, with the words that they use.

A stochastic block model whose papers differ in how much they are cited, in which some topics are close to each other;
few papers have a known topic, and a paper's few words alone say little.
"""

import numpy as np
import pandas as pd
from mlgym_data import describe, public, write_labels, write_sample

rng = np.random.default_rng(19990)
topics = ["vision", "speech", "language", "planning", "robotics", "theory", "biology"]
n, words = 2800, 120
shares = np.array([0.22, 0.09, 0.19, 0.12, 0.14, 0.15, 0.09])
topic = rng.choice(len(topics), n, p=shares)
# How often a paper of one topic cites one of another, beside its own topic's.
close = np.full((7, 7), 0.022)
np.fill_diagonal(close, 1.0)
for first, second, strength in [(0, 4, 0.12), (1, 2, 0.16), (3, 4, 0.14), (3, 5, 0.08)]:
    close[first, second] = close[second, first] = strength
fame = rng.pareto(2.6, n) + 0.35
expected = np.outer(fame, fame) * close[np.ix_(topic, topic)]
expected *= n * 2.2 / np.triu(expected, 1).sum()
source, target = np.nonzero(np.triu(rng.random((n, n)) < 1 - np.exp(-expected), 1))
flip = rng.random(len(source)) < 0.5
source, target = np.where(flip, target, source), np.where(flip, source, target)
# Each topic prefers some words; topics that are close share some of these.
liking = rng.gamma(0.4, 1.0, (7, words)) + 0.25
liking[[0, 4]] += 0.5 * liking[[4, 0]]
liking[[1, 2]] += 0.6 * liking[[2, 1]]
liking /= liking.sum(axis=1, keepdims=True)
# A seventh of the papers are written in another topic's words.
voice = np.where(rng.random(n) < 0.15, rng.integers(0, 7, n), topic)
counts = np.stack([rng.multinomial(rng.poisson(9) + 2, 0.75 * liking[row] + 0.25 / words) for row in voice])
papers = pd.DataFrame((counts > 0).astype(int), columns=[f"word_{index:03d}" for index in range(words)])
papers.insert(0, "id", np.arange(n))
papers.to_csv(public() / "papers.csv", index=False)
pd.DataFrame({"source": source, "target": target}).to_csv(public() / "citations.csv", index=False)
order = rng.permutation(n)
known = np.concatenate([[paper for paper in order if topic[paper] == index][:18] for index in range(7)])
known = rng.permutation(known)
hidden = rng.permutation(np.setdiff1d(order, known))
split = np.where(rng.random(len(hidden)) < 0.25, "validation", "test")
label = np.array(topics)[topic]
pd.DataFrame({"id": known, "topic": label[known]}).to_csv(public() / "train.csv", index=False)
pd.DataFrame({"id": hidden}).to_csv(public() / "test.csv", index=False)
write_labels(hidden, label[hidden], split)
submission = {"columns": ["topic"], "prediction": "class", "classes": topics}
write_sample(hidden, submission, None)
describe(
    kind="graph",
    task="classification",
    metric="accuracy",
    goal="maximize",
    train="train.csv",
    test="test.csv",
    nodes="papers.csv",
    edges="citations.csv",
    id="id",
    target="topic",
    submission=submission,
)
