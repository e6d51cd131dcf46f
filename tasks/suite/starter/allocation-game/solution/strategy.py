"""Best response to the opponent's recent rounds, searched by trading troops, with a little chance in it."""

import random

FIELDS, TROOPS = 6, 60


def expected(mine, rounds):
    total = 0.0
    for weight, theirs in rounds:
        for value, (a, b) in enumerate(zip(mine, theirs), 1):
            total += weight * value * ((a > b) + 0.5 * (a == b))
    return total


def climb(start, rounds, rng):
    best, best_score = list(start), expected(start, rounds)
    for _ in range(400):
        a, b = rng.sample(range(FIELDS), 2)
        n = rng.randint(1, 6)
        if best[a] < n:
            continue
        best[a] -= n
        best[b] += n
        score = expected(best, rounds)
        if score >= best_score:
            best_score = score
        else:
            best[a] += n
            best[b] -= n
    return best, best_score


def allocate(history):
    rng = random.Random(len(history) * 7919 + sum(sum(r[1][:3]) for r in history))
    rounds = [(0.85 ** (len(history) - 1 - i), r[1]) for i, r in enumerate(history)]
    rounds += [(0.3, [3, 6, 9, 11, 14, 17]), (0.2, [2, 2, 14, 14, 14, 14]), (0.1, [10] * 6)]
    starts = [[3, 6, 9, 11, 14, 17], [0, 0, 15, 15, 15, 15], [5, 7, 10, 14, 0, 24], [1, 4, 7, 12, 16, 20]]
    return max((climb(start, rounds, rng) for start in starts), key=lambda found: found[1])[0]
