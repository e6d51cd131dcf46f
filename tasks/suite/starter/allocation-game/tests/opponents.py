"""The hidden opponents: functions from the history, seen from their side, to an allocation."""

import numpy as np

FIELDS, TROOPS = 6, 60
VALUES = np.arange(1, FIELDS + 1)


def whole(weights):
    """Shares out all troops in proportion to the weights."""
    weights = np.maximum(np.asarray(weights, float), 0)
    shares = TROOPS * weights / weights.sum()
    troops = np.floor(shares).astype(int)
    for index in np.argsort(troops - shares)[: TROOPS - troops.sum()]:
        troops[index] += 1
    return [int(n) for n in troops]


def planned(weights, spread, seed):
    """Has one plan and varies it."""
    rng = np.random.default_rng(seed)
    return lambda history: whole(np.asarray(weights) * np.exp(rng.normal(0, spread, FIELDS)))


def mixed(plans, spread, seed):
    """Picks one of several plans each round."""
    rng = np.random.default_rng(seed)
    return lambda history: whole(np.asarray(plans[rng.integers(len(plans))]) * np.exp(rng.normal(0, spread, FIELDS)))


def follower(window, seed):
    """Puts a little more than the other side's mean of the last rounds where that is cheap."""
    rng = np.random.default_rng(seed)

    def play(history):
        if not history:
            return whole(VALUES + rng.normal(0, 0.3, FIELDS))
        theirs = np.mean([round[1] for round in history[-window:]], axis=0)
        need = np.floor(theirs) + 1 + rng.integers(0, 2, FIELDS)
        troops, left = np.zeros(FIELDS, int), TROOPS
        for field in np.argsort(-(VALUES / np.maximum(need, 1))):
            if need[field] <= left:
                troops[field] = need[field]
                left -= troops[field]
        troops[rng.integers(FIELDS)] += left
        return [int(n) for n in troops]

    return play


def opponents(split):
    """Lists the opponents of a split."""
    s = {"validation": 100, "test": 200}[split]
    rng = np.random.default_rng(s)
    jitter = lambda weights: np.asarray(weights, float) * np.exp(rng.normal(0, 0.15, FIELDS))
    return [
        planned(jitter(VALUES), 0.1, s + 1),
        planned(jitter([1, 1, 1, 6, 6, 6]), 0.15, s + 2),
        planned(jitter([1, 1, 8, 8, 1, 1]), 0.2, s + 3),
        planned(jitter(VALUES**2), 0.1, s + 4),
        mixed([jitter([0.1, 0.1, 5, 5, 5, 5]), jitter([3, 4, 5, 0.1, 0.1, 6]), jitter(VALUES)], 0.15, s + 5),
        mixed([jitter([0.1, 2, 0.1, 4, 5, 6]), jitter([1, 2, 3, 4, 0.1, 6])], 0.25, s + 6),
        follower(1, s + 7),
        follower(6, s + 8),
    ]
