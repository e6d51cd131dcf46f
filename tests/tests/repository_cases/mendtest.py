"""Small programs that rotted in the usual ways: each must run after mend.py, and still compute what it computed.

mendtest.py MEND.py runs each in a repository of its own, mends it as long as it fails otherwise than before, and compares
what it prints in the end. A case that nothing can be known about must come back unmended.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

# name: (files, command, what it prints at last; `None` where no rule may know it)
CASES = {
    "numpy's old types": (
        {"a.py": "import numpy as np\nx = np.zeros(3, dtype=np.float)\nprint(x.astype(np.int).sum(), np.bool(1), np.Inf, np.product([2, 3]))\n"},
        "python a.py", "0 True inf 6"),
    "an alias, two files, and a name of the same letters": (
        {"lib.py": "import numpy\ndef f(x):\n    return numpy.asfarray(x)\n",
         "a.py": "from lib import f\nclass np:\n    float = 'mine'\nprint(f([1, 2]).dtype, np.float)\n"},
        "python a.py", "float64 mine"),
    "pandas' append of rows, tables and in loops": (
        {"a.py": "import pandas as pd\nt = pd.DataFrame({'a': [1]})\nt = t.append({'a': 2}, ignore_index=True)\n"
                 "more = pd.DataFrame({'a': [3]})\nt = t.append(more, ignore_index=True)\n"
                 "row = {'a': 4}\nt = t.append(row, ignore_index=True)\nitems = []\nitems.append(5)\n"
                 "t = t.append([more, more], ignore_index=True)\nprint(list(t['a']), items)\n"},
        "python a.py", "[1, 2, 3, 4, 3, 3] [5]"),
    "pandas' other old methods": (
        {"a.py": "import pandas as pd\nt = pd.DataFrame({'a': [1, 2, 4], 'b': ['x', 'y', 'z']})\n"
                 "print([n for n, _ in t.iteritems()], t.ix[1, 'a'], t[['a']].as_matrix().tolist(), t.a.mad())\nprint(t.mean()['a'])\n"},
        "python a.py", "2.3333333333333335"),
    "pandas.np and fillna(method)": (
        {"a.py": "import pandas as pd\ns = pd.Series([1, pd.np.nan, 3])\nprint(s.fillna(method='ffill').tolist())\n"},
        "python a.py", "[1.0, 1.0, 3.0]"),
    "sklearn's externals, private modules and moved functions": (
        {"a.py": "from sklearn.externals import joblib\nfrom sklearn.cross_validation import train_test_split, KFold\n"
                 "from sklearn.ensemble.forest import RandomForestClassifier\nfrom sklearn.linear_model.logistic import LogisticRegression as LR\n"
                 "def late():\n    from sklearn.externals.joblib import dump\n    return dump\n"
                 "print(joblib.__name__, RandomForestClassifier.__name__, LR.__name__, late().__name__, train_test_split.__name__, KFold.__name__)\n"},
        "python a.py", "joblib RandomForestClassifier LogisticRegression dump train_test_split KFold"),
    "sklearn's Imputer": (
        {"a.py": "from sklearn.preprocessing import Imputer, StandardScaler\n"
                 "i = Imputer(missing_values='NaN', strategy='mean', axis=0)\nprint(i.fit_transform([[1.0], [float('nan')]]).ravel().tolist())\n"},
        "python a.py", "[1.0, 1.0]"),
    "sklearn's renamed arguments and values": (
        {"a.py": "from sklearn.preprocessing import OneHotEncoder\nfrom sklearn.ensemble import AdaBoostClassifier, RandomForestRegressor\n"
                 "from sklearn.ensemble import GradientBoostingRegressor as GBR\nfrom sklearn.tree import DecisionTreeClassifier\nfrom sklearn.metrics import mean_squared_error\n"
                 "e = OneHotEncoder(sparse=False, handle_unknown='ignore').fit([['a'], ['b']])\n"
                 "AdaBoostClassifier(base_estimator=DecisionTreeClassifier(), n_estimators=2).fit([[0], [1]], [0, 1])\n"
                 "options = {'criterion': 'mse', 'n_estimators': 2}\nRandomForestRegressor(max_features='auto', **options).fit([[0], [1]], [0, 1])\n"
                 "GBR(loss='ls', n_estimators=2).fit([[0.], [1.]], [0., 1.])\n"
                 "print(e.get_feature_names()[0], mean_squared_error([0, 0], [3, 3], squared=False))\n"},
        "python a.py", "x0_a 3.0"),
    "a value in a configuration file": (
        {"conf.json": "{\"criterion\": \"mse\", \"n_estimators\": 2}\n",
         "a.py": "import json\nfrom sklearn.ensemble import RandomForestRegressor\nm = RandomForestRegressor(**json.load(open('conf.json')))\nm.fit([[0], [1]], [0, 1])\nprint(m.criterion)\n"},
        "python a.py", "squared_error"),
    "Python 2": (
        {"a.py": "import sys\nd = {'a': 1}\nprint 'start'\ntry:\n    raise ValueError('no')\nexcept ValueError, e:\n    print 'caught', e\n"
                 "for k, v in d.iteritems():\n    print '%s %d' % (k, v)\nprint\nprint [i for i in xrange(3)]\n"},
        "python a.py", "[0, 1, 2]"),
    "names of the standard library": (
        {"a.py": "from collections import Mapping, OrderedDict\nimport collections\nimport time\nfrom fractions import gcd\n"
                 "t = time.clock()\nprint(issubclass(dict, Mapping), issubclass(list, collections.Sequence), gcd(4, 6), OrderedDict().__class__.__name__)\n"},
        "python a.py", "True True 2 OrderedDict"),
    "a part of a package that nobody imported": (
        {"a.py": "import sklearn\nprint(sklearn.isotonic.IsotonicRegression.__name__)\n"}, "python a.py", "IsotonicRegression"),
    "directories that nobody made": (
        {"a.py": "import pandas as pd\npd.DataFrame({'a': [1]}).to_csv('out/tables/a.csv')\nopen('logs/run.txt', 'w').write('x')\nimport os\nos.mkdir('deep/er')\nprint(os.path.exists('logs/run.txt'))\n"},
        "python a.py", "True"),
    "the author's paths, put together": (
        {"a.py": "import os\nimport pandas as pd\nROOT = '/home/author/projects/tide'\nDATA = os.path.join(ROOT, 'data')\n"
                 "t = pd.read_csv(os.path.join(DATA, 'train.csv'))\nos.makedirs(os.path.join(ROOT, 'models'), exist_ok=True)\n"
                 "open(os.path.join(ROOT, 'models', 'm.txt'), 'w').write('x')\nprint(len(t), os.path.exists('models/m.txt'))\n",
         "data/train.csv": "a,b\n1,2\n3,4\n"},
        "python a.py", "2 True"),
    "what is to be made where nobody may make it": (
        {"a.py": "import os\nOUT = '/home/author/tide/models'\nLOG = '/home/author/tide/models/log.txt'\nos.makedirs(OUT, exist_ok=True)\n"
                 "open(LOG, 'w').write('x')\nprint(os.path.exists('models/log.txt'))\n"},
        "python a.py", "True"),
    "a path in a configuration file": (
        {"conf.yaml": "data:\n  train: /mnt/lab/sets/train.csv  # ours\n", "small/train.csv": "a 1 2\n",
         "a.py": "path = [l.split(':', 1)[1].split('#')[0].strip() for l in open('conf.yaml') if 'train' in l][0]\nprint(len(open(path).read().split()))\n"},
        "python a.py", "3"),
    "data of the task instead of the repository's": (
        {"a.py": "import csv\nprint(len(list(csv.reader(open('data/raw/given_test.csv')))))\n"}, "python a.py", "4"),
    "a path on the command line": (
        {"a.py": "import sys\nprint(len(open(sys.argv[1]).read().split()))\n"}, "python a.py data/given_test.csv", "4"),
    "a module that lies elsewhere in the repository": (
        {"src/tide/__init__.py": "", "src/tide/core.py": "x = 3\n", "scripts/a.py": "from tide.core import x\nimport helpers\nprint(x + helpers.y)\n",
         "tools/helpers.py": "y = 4\n"},
        "python scripts/a.py", "7"),
    "packages that only report or draw": (
        {"a.py": "from tqdm import tqdm\nimport wandb\nimport seaborn as sns\nfrom tensorboardX import SummaryWriter\nfrom termcolor import colored\n"
                 "import tqdm.auto as auto\nfrom tqdm import trange\n"
                 "wandb.init(project='p')\nw = SummaryWriter('x')\nbar = tqdm([1, 2, 3], desc='d')\ntotal = 0\nfor i in bar:\n    total += i\n    bar.set_description('x')\n"
                 "w.add_scalar('a', 1)\nsns.set()\nwith tqdm(total=3) as b:\n    b.update(1)\nprint(total, sum(1 for _ in enumerate(tqdm('ab'))), len(tqdm([1, 2])), sum(trange(3)), colored('t', 'red'))\n"},
        "python a.py", "6 2 2 3 t"),
    "arguments that must be given": (
        {"a.py": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--test-file', required=True)\np.add_argument('-o', '--output', required=True)\n"
                 "p.add_argument('rows')\na = p.parse_args()\nprint(a.test_file, a.output, a.rows)\n"},
        "python a.py", None),
    "seeds of folds and yaml without a loader": (
        {"a.py": "from sklearn.model_selection import KFold\nprint(KFold(n_splits=3, random_state=7).get_n_splits())\n"}, "python a.py", "3"),
    "rows of several lengths": (
        {"a.py": "import numpy as np\nprint(np.array([[1, 2], [3]]).shape)\n"}, "python a.py", "(2,)"),
    "a mistake of the program itself": ({"a.py": "print({}['a'])\n"}, "python a.py", None),
    "a package that nothing can stand in for": ({"a.py": "import zzz_solver\nprint(zzz_solver.solve())\n"}, "python a.py", None),
}


def attempt(mend, files, command, data):
    """Runs and mends; returns how it ended, what it printed last and all that was mended."""
    here = pathlib.Path(tempfile.mkdtemp())
    subprocess.run(["git", "init", "-q"], cwd=here, check=True)
    for name, text in files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "add", "-A"], cwd=here, check=True)
    environment, mended, seen = dict(os.environ), [], []
    for _ in range(20):
        ran = subprocess.run(["bash", "-c", command], cwd=here, env=environment, capture_output=True, text=True)
        if ran.returncode == 0:
            return True, (ran.stdout.strip().splitlines() or [""])[-1], mended
        text = ran.stdout + ran.stderr
        if text in seen:
            return False, ran.stderr.strip().splitlines()[-1], mended
        seen.append(text)
        failure = here / ".git" / "failure.json"
        failure.write_text(json.dumps({"command": command, "text": text, "submission": "/tmp/p.csv", "data": data}))
        told = subprocess.run([sys.executable, mend, str(failure)], cwd=here, env=environment, capture_output=True, text=True)
        if told.returncode != 0:
            return False, f"mend.py failed: {told.stderr}", mended
        found = json.loads(told.stdout.strip().splitlines()[-1])
        mended += found["mended"]
        command = found["command"] or command
        environment["PYTHONPATH"] = ":".join([*found["path"], environment.get("PYTHONPATH", "")]).rstrip(":")
        if not found["mended"] and not found["command"]:
            return False, ran.stderr.strip().splitlines()[-1], mended
    return False, "never ends", mended


def main():
    mend = os.path.abspath(sys.argv[1])
    given = pathlib.Path(tempfile.mkdtemp()) / "given_test.csv"
    given.write_text("a\n1\n2\n3\n")
    bad = 0
    for name, (files, command, expected) in CASES.items():
        ran, last, mended = attempt(mend, files, command, [str(given)])
        good = ran and last == expected if expected is not None else not ran
        if name == "arguments that must be given":
            good = ran and last == f"{given} /tmp/p.csv {given}"
        if not good:
            bad += 1
            print(f"{name}: {'ran' if ran else 'failed'}, {last!r}, not {expected!r}; mended {mended}")
    print(f"{len(CASES)} cases, {bad} bad")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
