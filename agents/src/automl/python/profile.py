"""Looks at the data and prints what the choice of candidates depends on."""

from automl_common import IS_CLASSES, SPEC, Problem, columns_of, json, np

problem = Problem(0)
facts = {"kind": SPEC["kind"], "task": SPEC["task"], "metric": SPEC["metric"], "rows": len(problem.y)}
facts["test_rows"] = len(problem.ids)
if hasattr(problem.x, "columns"):
    numbers, few, many = columns_of(problem.x)
    facts.update(numbers=len(numbers), few=len(few), many=len(many), features=problem.x.shape[1])
    facts["missing"] = float(problem.x.isna().mean().mean())
else:
    facts.update(numbers=int(np.prod(problem.x.shape[1:])), few=0, many=0, missing=0.0)
    facts["features"] = facts["numbers"]
if IS_CLASSES:
    counts = np.bincount(problem.y, minlength=len(problem.classes))
    facts.update(classes=len(problem.classes), smallest_class=int(counts.min()))
else:
    facts.update(classes=0, smallest_class=0)
print(json.dumps(facts))
