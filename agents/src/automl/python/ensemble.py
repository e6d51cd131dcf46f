"""Greedy ensemble selection over the candidates' out-of-fold predictions, then the submission.

Candidates are added with replacement while the metric improves ("Ensemble selection from libraries of models", ICML 2004); the weights are the
shares of the additions.
"""

from automl_common import OUT, Problem, error_of, in_the_metric, json, known_rows, np, score, smooth_score, sys, write_submission

problem = Problem(int(sys.argv[1]))
names = sys.argv[2:]
kept = {name: np.load(OUT / f"{name}.npz") for name in names}
known = np.ones(len(problem.y), bool)
for arrays in kept.values():
    known &= known_rows(arrays["oof"])
y = problem.y[known]
oof = {name: arrays["oof"][known] for name, arrays in kept.items()}
total, chosen, best = 0.0, [], -np.inf
for _ in range(30):
    trials = {name: smooth_score(y, (total + oof[name]) / (len(chosen) + 1)) for name in names}
    name = max(trials, key=trials.get)
    # An addition must be worth it, so that noise does not fill the ensemble.
    if chosen and trials[name] <= best + 1e-6 * abs(best):
        break
    chosen.append(name)
    total, best = total + oof[name], trials[name]
weights = {name: chosen.count(name) / len(chosen) for name in sorted(set(chosen))}
test = sum(weight * kept[name]["test"] for name, weight in weights.items())
write_submission(problem, test)
whole = sum(weight * kept[name]["oof"] for name, weight in weights.items())
raw = in_the_metric(score(y, whole[known]))
print(json.dumps({"weights": weights, "score": best, "raw": raw, "error": error_of(problem, whole, known)}))
