"""Looks at the data and prints what the choice of candidates depends on."""

from automl_common import IS_CLASSES, SPEC, Problem, json, np

problem = Problem(0)
facts = {"kind": SPEC["kind"], "task": SPEC["task"], "metric": SPEC["metric"], "rows": len(problem.y)}
facts["test_rows"] = len(problem.ids)
facts.update(problem.kind.facts(problem))
if IS_CLASSES:
    counts = np.bincount(problem.y, minlength=len(problem.classes))
    facts.update(classes=len(problem.classes), smallest_class=int(counts.min()))
else:
    facts.update(classes=0, smallest_class=0)
print(json.dumps(facts))
