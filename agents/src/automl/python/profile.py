"""`profile.py SEED`: looks at the data and prints what the choice of candidates depends on."""

from automl_common import IS_CLASSES, SPEC, Problem, json, np, sys

problem = Problem.load(int(sys.argv[1]))
facts = {"kind": SPEC["kind"], "task": SPEC["task"], "metric": SPEC["metric"], "rows": len(problem.y)}
facts.update(test_rows=len(problem.ids), folds=problem.once, all_folds=len(problem.folds))
facts.update(problem.kind.facts(problem))
if IS_CLASSES:
    counts = np.bincount(problem.y, minlength=len(problem.classes))
    facts.update(classes=len(problem.classes), seen_classes=int((counts > 0).sum()))
    facts.update(smallest_class=int(counts[counts > 0].min()))
else:
    y = problem.y
    spread = float(np.std(y))
    facts.update(classes=0, seen_classes=0, smallest_class=0, positive=int((y > 0).all()))
    facts.update(counts=int((y >= 0).all() and (y == np.round(y)).all()), constant=int(spread == 0))
    facts["skew"] = float(np.mean(((y - y.mean()) / spread) ** 3)) if spread > 0 else 0.0
print(json.dumps(facts))
