"""Tries `notebook.py`, which lies beside this file: what a cell comes to in a script, and what is no notebook."""

import ast
import json

from notebook import plain, script_of

# A cell, what its script must have, and what it must not.
CELLS = [
    ('%matplotlib inline\nprint("a %s"\n      % name)', ["% name)"], []),
    ("!pip install -q \\\n    lightgbm xgboost\nx = 1", ["x = 1"], ["xgboost"]),
    ("%run utils.py a b", ["exec(compile(open('utils.py')", "['utils.py', 'a', 'b']"], []),
    ("%cd '/kaggle/working'\n%cd -q ..", ["expanduser('/kaggle/working')", "expanduser('..')"], []),
    ("!echo {X} $Y\nfiles = !ls *.csv", ["_run('echo {X} $Y')", "getoutput(_said('ls *.csv'))"], []),
    ("%%writefile -a f.txt\nhello", ["'a'"], []),
    ("%env A=1\n%set_env B 2", ["environ['A'] = '1'", "environ['B'] = '2'"], []),
    ("%pylab inline\nx = array([1])", ["from numpy import *"], []),
    ("t = '''\n%not\n!no\n'''\n%time y = 2\ndf?", ["%not\n!no", "y = 2"], ["df?"]),
    ("if True:\n    !echo hi\n    %time z = 3", ["    _run('echo hi')", "    z = 3"], []),
    ("x = [\n  5\n  % 3,\n]\n%matplotlib inline", ["% 3"], []),
    ("x = 5 \\\n  % 3\n!ls", ["% 3", "_run('ls')"], []),
    ("%%bash\npython train.py", ["_run('python train.py')"], []),
    ("%%javascript\nalert(1)", ["pass"], ["alert"]),
    ("text = '%d of %d' % (1, 2)", ["text = '%d of %d' % (1, 2)"], []),
]
for cell, wanted, unwanted in CELLS:
    made = plain(cell)
    ast.parse(made)
    for part in wanted:
        assert part in made, (part, made)
    for part in unwanted:
        assert part not in made, (part, made)

# Python 2 is left for the rules that know it.
assert plain('print "acc: %.2f" \\\n    % acc') == 'print "acc: %.2f" \\\n    % acc'


def notebook(source, about):
    return json.dumps({"cells": [{"cell_type": "code", "source": source}], "metadata": about})


script = script_of(notebook("from __future__ import (print_function,\n  division)\nx = 3\ny = !echo {x}", {"kernelspec": {"name": "tensorflow"}}), "a.ipynb")
names = {}
exec(compile(script, "script", "exec"), names)
assert names["y"] == ["3"], names["y"]
for about in ({"kernelspec": {"name": "ir"}}, {"language_info": {"name": "R"}}, {"kernelspec": {"name": "julia-1.6"}}):
    try:
        script_of(notebook("x", about), "a.ipynb")
    except ValueError as error:
        assert "it is written in" in str(error), error
    else:
        raise AssertionError(about)
for text in ("[]", "{}", "x", '{"cells": 5}', '{"cells": [1]}', "[" * 100_000):
    try:
        script_of(text, "a.ipynb")
    except ValueError:
        continue
    raise AssertionError(text[:20])
print(f"{len(CELLS)} cells are right")
