"""Small programs that rotted in the usual ways: each must run after mend.py, and still compute what it computed.

mendtest.py MEND.py runs each in a repository of its own, mends it as long as it fails otherwise than before, and compares
what it prints in the end. A case that nothing can be known about must come back unmended. A second argument is a part of the
names of the cases to run.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# name: (files, command, what it prints at last; `None` where no rule may know it). `{given}` is the task's table.
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
        "python a.py", "{given} /tmp/p.csv {given}"),
    "a name of a table that is none of the task's": ({"a.py": "print(open('data/latest_prices.csv').read())\n"}, "python a.py", None),
    "tables appended to what was appended to, in one line": (
        {"a.py": "import pandas as pd\nt = pd.DataFrame({'a': [1]})\nrows = []\nt = t.append({'a': 2}, ignore_index=True).append(\n    [{'a': 3}],\n    ignore_index=True,\n)\nprint(list(t['a']))\n"},
        "python a.py", "[1, 2, 3]"),
    "numbers only": (
        {"a.py": "import pandas as pd\nt = pd.DataFrame({'a': [1, 2], 'b': [2, 1], 'c': ['x', 'y']})\nprint(t.corr(\n    'pearson',\n).shape)\n"},
        "python a.py", "(2, 2)"),
    "yaml without a loader": ({"a.py": "import yaml\nprint(yaml.load('a: 3')['a'])\n"}, "python a.py", "3"),
    "a processor that is not there": (
        {"torch.py": "def device(name):\n    if name != 'cpu':\n        raise RuntimeError('Found no NVIDIA driver on your system')\n    return name\n",
         "a.py": "import torch\nname = 'cuda'\nplace = torch.device('cuda')\nprint(place, name == 'cuda')\n"},
        "python a.py", "cpu True"),
    "drawings that are taken apart": (
        {"a.py": "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nfrom matplotlib import cm\nimport seaborn as sns\nimport numpy as np\n"
                 "fig, ax = plt.subplots()\nax.set_title('x')\nfig, (a, b) = plt.subplots(1, 2)\nfig, axes = plt.subplots(2, 2)\naxes[0, 1].plot([1])\n"
                 "((p, q), (r, s)) = axes\nn, bins, patches = plt.hist([1, 2, 2, 3], bins=3)\nline, = ax.plot([1], [2])\n"
                 "low, high = plt.ylim()\nplt.ylim(low * 2, high + 1)\ncolors = cm.rainbow(np.linspace(0, 1, 3))\nplt.savefig('x.png')\n"
                 "print(n.astype(int).tolist(), len(bins), len(axes.ravel()), [i for i, _ in zip(range(9), axes.flat)], len(list(colors)), ax[0] > 1)\n"},
        "python a.py", "[1, 2, 1] 4 4 [0, 1, 2, 3] 3 False"),
    "colours in text, and settings of a run": (
        {"a.py": "from colorama import Fore, Style, init\nimport wandb\nfrom rich import print\ninit(autoreset=True)\nwandb.init(config={'lr': 0.5}, project='p')\n"
                 "class Mine(wandb.Callback):\n    def rate(self):\n        return wandb.config.lr\n"
                 "print(Fore.RED + 'x' + Style.RESET_ALL + f'{Fore.RED}y', Mine().rate(), bool(wandb.run))\n"},
        "python a.py", "xy 0.5 False"),
    "a stand-in that would have to say what it holds": (
        {"a.py": "import wandb\ntry:\n    wandb.agent('x', function=print)\nexcept AttributeError:\n    pass\nelse:\n    raise SystemExit('an agent')\ntry:\n    list(wandb.history)\nexcept TypeError:\n    print('no history')\n"},
        "python a.py", "no history"),
    "a plain file that is called like a stand-in": ({"rich": "x", "a.py": "import rich\nprint(open('rich').read())\n"}, "python a.py", "x"),
    "seeds of folds": (
        {"a.py": "from sklearn.model_selection import KFold\nprint(KFold(n_splits=3, random_state=7).get_n_splits())\n"}, "python a.py", "3"),
    "rows of several lengths": (
        {"a.py": "import numpy as np\nprint(np.array([[1, 2], [3]]).shape)\n"}, "python a.py", "(2,)"),
    "a mistake of the program itself": ({"a.py": "print({}['a'])\n"}, "python a.py", None),
    "a package that nothing can stand in for": ({"a.py": "import zzz_solver\nprint(zzz_solver.solve())\n"}, "python a.py", None),
}

# What may not be changed, or only so: (files, what the program failed with, the files that are changed with what is then in
# them). Nothing of it is run; `{here}` is the repository.
FAILURES = {
    "an argument of Python 2's name": (
        {"a.py": "def loss(x, reduce=True):\n    if reduce:\n        return 1\nprint(loss(1))\n", "b.py": "print(reduce(max, [1]))\n"},
        "NameError: name 'reduce' is not defined", {"b.py": "import functools\nprint(functools.reduce(max, [1]))\n"}),
    "a name of Python 2 that the program asks for": (
        {"a.py": "try:\n    unicode\n    OLD = True\nexcept NameError:\n    OLD = False\nprint(file)\n", "b.py": "x = unicode(1)\n"},
        "NameError: name 'unicode' is not defined", {"b.py": "x = str(1)\n"}),
    "file is no name that is known": ({"a.py": "print(file)\n"}, "NameError: name 'file' is not defined", {}),
    "a value of another class": (
        {"a.py": "from sklearn.ensemble import RandomForestRegressor\nimport net\nRandomForestRegressor(criterion='mse')\nnet.Loss(criterion='mse')\nd = {'criterion': 'mse'}\n", "net.py": ""},
        "The 'criterion' parameter of RandomForestRegressor must be a str among {'x'}. Got 'mse' instead.",
        {"a.py": "from sklearn.ensemble import RandomForestRegressor\nimport net\nRandomForestRegressor(criterion='squared_error')\nnet.Loss(criterion='mse')\nd = {'criterion': 'mse'}\n"}),
    "a value in two dictionaries": (
        {"a.py": "d = {'criterion': 'mse'}\ne = {'criterion': 'mse'}\n"},
        "The 'criterion' parameter of RandomForestRegressor must be a str among {'x'}. Got 'mse' instead.", {}),
    "a value in a configuration file and in the call of something else": (
        {"a.py": "loss(criterion='mse')\n", "c.yaml": "criterion: mse\n"},
        "The 'criterion' parameter of RandomForestRegressor must be a str among {'x'}. Got 'mse' instead.", {}),
    "normalize": (
        {"a.py": "from sklearn.linear_model import Ridge\nRidge(normalize=True)\nRidge(normalize=False, alpha=2)\nRidge(normalize=n)\n"},
        "TypeError: Ridge.__init__() got an unexpected keyword argument 'normalize'",
        {"a.py": "from sklearn.linear_model import Ridge\nRidge(normalize=True)\nRidge(alpha=2)\nRidge(normalize=n)\n"}),
    "multi_class": (
        {"a.py": "from sklearn.linear_model import LogisticRegression as L\nL(multi_class='ovr')\n"},
        "TypeError: LogisticRegression.__init__() got an unexpected keyword argument 'multi_class'", {}),
    "AdaBoost's algorithm": (
        {"a.py": "from sklearn.ensemble import AdaBoostClassifier as A\nA(algorithm='SAMME.R')\nA(algorithm='SAMME')\n"},
        "TypeError: AdaBoostClassifier.__init__() got an unexpected keyword argument 'algorithm'",
        {"a.py": "from sklearn.ensemble import AdaBoostClassifier as A\nA(algorithm='SAMME.R')\nA()\n"}),
    "the root of an error": (
        {"a.py": "from sklearn.metrics import mean_squared_error as m\nm(a, b, squared=True)\nm(a, m(c, d, squared=False), squared=s)\nm(a, b, squared=f())\n"},
        "TypeError: mean_squared_error() got an unexpected keyword argument 'squared'",
        {"a.py": "from sklearn.metrics import mean_squared_error as m\nm(a, b)\n(m(a, (m(c, d) ** 0.5)) if s else m(a, (m(c, d) ** 0.5)) ** 0.5)\nm(a, b, squared=f())\n"}),
    "a parser of dates": (
        {"a.py": "import pandas as pd\npd.read_csv('a', date_parser=f)\n"}, "TypeError: read_csv() got an unexpected keyword argument 'date_parser'", {}),
    "the last of what is double": (
        {"a.py": "t.drop_duplicates(take_last=True)\nt.drop_duplicates('a', take_last=False)\n"},
        "TypeError: DataFrame.drop_duplicates() got an unexpected keyword argument 'take_last'",
        {"a.py": "t.drop_duplicates(keep='last')\nt.drop_duplicates('a')\n"}),
    "an axis that is another": (
        {"a.py": "from sklearn.preprocessing import Imputer\nImputer(axis=1)\n"}, "ImportError: cannot import name 'Imputer' from 'sklearn.preprocessing'", {}),
    "an attribute that others still have": (
        {"a.py": "x.n_features_\nselector.n_features_\n"},
        "  File \"{here}/a.py\", line 1, in <module>\nAttributeError: 'RandomForestClassifier' object has no attribute 'n_features_'",
        {"a.py": "x.n_features_in_\nselector.n_features_\n"}),
    "a method of the repository's own": (
        {"a.py": "class T:\n    def iteritems(self):\n        return 1\nd.iteritems()\nT().iteritems()\n"},
        "  File \"{here}/a.py\", line 4, in <module>\nAttributeError: 'dict' object has no attribute 'iteritems'",
        {"a.py": "class T:\n    def iteritems(self):\n        return 1\nd.items()\nT().iteritems()\n"}),
    "a series that is sorted where it stands": (
        {"a.py": "s.sort()\n"}, "  File \"{here}/a.py\", line 1, in <module>\nAttributeError: 'Series' object has no attribute 'sort'",
        {"a.py": "s.sort_values(inplace=True)\n"}),
    "a comparison with a device": (
        {"a.py": "device = 'cuda'\nif device == 'cuda':\n    x.to('cuda:0')\nnames = ['cuda']\nmode = 'cuda'\ny.cuda()\n"},
        "AssertionError: Torch not compiled with CUDA enabled",
        {"a.py": "device = 'cpu'\nif device == 'cuda':\n    x.to('cpu')\nnames = ['cuda']\nmode = 'cuda'\ny.cpu()\n"}),
    "a file whose name has a table's use in it": (
        {"a.py": "open('data/latest_prices.csv')\n"}, "FileNotFoundError: [Errno 2] No such file or directory: 'data/latest_prices.csv'", {}),
    "labels to test with are not what is tested on": (
        {"a.py": "open('data/test_labels.csv')\n"}, "FileNotFoundError: [Errno 2] No such file or directory: 'data/test_labels.csv'", {}),
    "two files of one name": (
        {"a.py": "open('x/m.csv')\n", "b/m.csv": "", "c/m.csv": ""}, "FileNotFoundError: [Errno 2] No such file or directory: 'x/m.csv'", {}),
    "a file of the tests": (
        {"a.py": "open('x/m.csv')\n", "tests/m.csv": ""}, "FileNotFoundError: [Errno 2] No such file or directory: 'x/m.csv'", {}),
    "labels to train with instead of those to test with": (
        {"a.py": "open('test/m.csv')\n", "train/m.csv": ""}, "FileNotFoundError: [Errno 2] No such file or directory: 'test/m.csv'", {}),
    "a key that is called like a directory": (
        {"a.py": "import os\nos.path.join('data', 'm.csv')\nc['data']\n", "in/m.csv": ""},
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/m.csv'",
        {"a.py": "import os\nos.path.join('{here}/in', 'm.csv')\nc['data']\n"}),
    "whole numbers that are divided in Python 2": ({"a.py": "print 7 / 2\n"}, "SyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?", {}),
    "a module of Python 2 that divides": (
        {"a.py": "import half\nprint half.f(3)\n", "half.py": "def f(x):\n    return x / 2\n"},
        "SyntaxError: Missing parentheses in call to 'print'. Did you mean print(...)?", {}),
    "what can be had once in Python 3": (
        {"a.py": "pairs = zip([1], [2])\nprint list(pairs), list(pairs)\n"}, "SyntaxError: Missing parentheses in call to 'print'.", {}),
    "what can be had once in Python 3, in a loop": (
        {"a.py": "pairs = zip([1], [2])\nfor i in [1, 2]:\n    print list(pairs)\n"}, "SyntaxError: Missing parentheses in call to 'print'.", {}),
    "what is printed in Python 2": (
        {"a.py": "import sys\nprint \"a\",\nprint >>sys.stderr, 'b', 1\nprint ('c', 2)\nprint ('d')\ntext = \"\"\"\nprint this\n\"\"\"\nprint 3 / 2.0, (1) + (2)\nraise ValueError, 'e'\n"},
        "SyntaxError: Missing parentheses in call to 'print'.",
        {"a.py": "import sys\nprint(\"a\", end=' ')\nprint('b', 1, file=sys.stderr)\nprint(('c', 2))\nprint('d')\ntext = \"\"\"\nprint this\n\"\"\"\nprint(3 / 2.0, (1) + (2))\nraise ValueError('e')\n"}),
    "the repository's own mock and collections": (
        {"a.py": "import cPickle\nfrom collections import Mapping\n", "cPickle.py": "", "b/collections.py": ""}, "ImportError: cannot import name 'x'", {}),
    "an old import that the program replaces itself": (
        {"a.py": "try:\n    from StringIO import StringIO\n    OLD = True\nexcept ImportError:\n    OLD = False\n"}, "ImportError: x", {}),
    "a name that an import would take": (
        {"a.py": "import pandas as pd\nfrom datetime import datetime\npd.datetime(2020, 1, 1)\n"}, "AttributeError: module 'pandas' has no attribute 'datetime'", {}),
    "an import that only looks like one": (
        {"a.py": "\ufeff'''import numpy as np'''\r\nimport pandas as pd\r\npd.np.nan\r\n"}, "AttributeError: module 'pandas' has no attribute 'np'",
        {"a.py": "\ufeff'''import numpy as np'''\r\nimport numpy as np\r\nimport pandas as pd\r\nnp.nan\r\n"}),
    "directories of another machine": (
        {"a.py": "open('/home/me/runs/x.txt', 'w')\n", "c.yaml": "a: /home/me/runs/x.txt\nb: /home/me/runs_old/x.txt\nc: s3://u/home/me/runs/x.txt\nd: /home/me/runs/sub/y.txt\n"},
        "  File \"{here}/a.py\", line 1, in <module>\n    open('/home/me/runs/x.txt', 'w')\nFileNotFoundError: [Errno 2] No such file or directory: '/home/me/runs/x.txt'",
        {"a.py": "open('{here}/runs/x.txt', 'w')\n", "c.yaml": "a: {here}/runs/x.txt\nb: /home/me/runs_old/x.txt\nc: s3://u/home/me/runs/x.txt\nd: {here}/runs/sub/y.txt\n"}),
    "a directory of another machine and one file below it": (
        {"a.py": "import os\nOUT = '/home/me/runs'\nos.makedirs(OUT)\nopen('/home/me/runs/x.txt')\n"},
        "  File \"{here}/a.py\", line 3, in <module>\n    os.makedirs(OUT)\nPermissionError: [Errno 13] Permission denied: '/home/me/runs'",
        {"a.py": "import os\nOUT = '{here}/runs'\nos.makedirs(OUT)\nopen('{here}/runs/x.txt')\n"}),
    "directories that are the machine's": (
        {"a.py": "open('/data/x.txt', 'w')\nopen('/data/train.csv')\n"},
        "  File \"{here}/a.py\", line 1, in <module>\n    open('/data/x.txt', 'w')\nPermissionError: [Errno 13] Permission denied: '/data/x.txt'", {}),
    "numbers only, with a comma at the end": (
        {"a.py": "df.corr(\n    \"pearson\",  # the usual, (as ever)\n)\n"},
        "  File \"{here}/a.py\", line 1, in <module>\n  File \"/lib/pandas/core/frame.py\", line 9, in corr\nValueError: could not convert string to float: 'x'",
        {"a.py": "df.corr(\n    \"pearson\", numeric_only=True  # the usual, (as ever)\n)\n"}),
    "rows of several lengths in one of two arrays": (
        {"a.py": "np.array(x) + np.array(y)\n"},
        "  File \"{here}/a.py\", line 1, in <module>\nValueError: setting an array element with a sequence. The requested array has an inhomogeneous shape after 1 dimensions.", {}),
    "a part of tqdm that is not there": ({"a.py": "import tqdm.nothing\n"}, "ModuleNotFoundError: No module named 'tqdm.nothing'", {}),
    "a framework that runs what it is given": ({"a.py": "import sacred\n"}, "ModuleNotFoundError: No module named 'sacred'", {}),
    "a file that is no Python and one that is too deep": (
        {"a.py": "import numpy as np\nnp.Inf\n", "b.py": "x = " + "-" * 100_000 + "1\n", "c.py": "\0", "d.py": "# coding: nonsense\n"},
        "AttributeError: `np.Inf` was removed in the NumPy 2.0 release.", {"a.py": "import numpy as np\nnp.inf\n"}),
}

# The arguments that a program must have: what is run instead; `None` where nobody knows.
ARGUMENTS = {
    ("python a.py", "--output_dir"): "python a.py --output_dir {here}/output",
    ("python a.py", "-o/--outDir"): "python a.py --outDir {here}/output",
    ("python a.py", "--output"): "python a.py --output /tmp/p.csv",
    ("python a.py", "--data-root, --test-csv"): "python a.py --data-root {data} --test-csv {data}/given_test.csv",
    ("python a.py", "--model_path"): "python a.py --model_path {here}/output/model_path",
    ("cd src && python a.py", "--checkpoint"): "cd src && python a.py --checkpoint {here}/output/checkpoint",
    ("python a.py", "--dropout"): None,
    ("python a.py", "--latest"): None,
    ("python a.py | tee log.txt", "--output"): None,
    ("python b.py && python a.py", "--output"): None,
    ("python a.py > log.txt", "--output"): None,
    ("bash run.sh", "--output"): None,
    ("python a.py", "--pred, --result"): None,
}

# What a program wrote, in the order in which it did: what is handed in as p.csv.
WRITTEN = {
    ("debug_predictions.csv", "out/predictions.csv", "val_predictions.csv"): "out/predictions.csv",
    ("b/p.csv", "a/p.csv", "submission.csv"): "a/p.csv",
    ("a/p.csv", "b/p.csv", "submission.csv"): "a/p.csv",
    ("spread.csv", "model.csv"): None,
    ("results.csv", "preds.csv", "train_preds.csv"): "preds.csv",
    ("p.csv/deep/submission.csv", "bad\udcff_predictions.csv"): "p.csv.dir/deep/submission.csv",
}


def repository(files):
    """Makes a repository of these files."""
    here = pathlib.Path(os.path.realpath(tempfile.mkdtemp()))
    subprocess.run(["git", "init", "-q"], cwd=here, check=True)
    for name, text in files.items():
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    subprocess.run(["git", "add", "-A"], cwd=here, check=True)
    return here


def told_by(mend, here, failure):
    """What mend.py answers; raises where it does not."""
    path = here / ".git" / "failure.json"
    path.write_text(json.dumps({"submission": "/tmp/p.csv", "stand_ins": f"{here}/.git/stand-ins", **failure}))
    told = subprocess.run([sys.executable, mend, str(path)], cwd=here, capture_output=True, text=True)
    if told.returncode != 0:
        raise AssertionError(f"mend.py failed: {told.stderr}")
    return json.loads(told.stdout.strip().splitlines()[-1])


def attempt(mend, files, command, data):
    """Runs and mends; returns how it ended, what it printed last and all that was mended."""
    here = repository(files)
    environment, mended, seen, path = dict(os.environ), [], [], []
    for _ in range(20):
        environment["PYTHONPATH"] = ":".join(path)
        ran = subprocess.run(["bash", "-c", command], cwd=here, env=environment, capture_output=True, text=True)
        if ran.returncode == 0:
            return True, (ran.stdout.strip().splitlines() or [""])[-1], mended
        text = ran.stdout + ran.stderr
        last = (text.strip().splitlines() or [""])[-1]
        if text in seen:
            return False, last, mended
        seen.append(text)
        found = told_by(mend, here, {"command": command, "text": text, "data": data, "path": path})
        mended += found["mended"]
        command = found["command"] or command
        if set(found["path"]) & set(path):
            raise AssertionError(f"{found['path']} is on the path already")
        path = [*found["path"], *path]
        if not found["mended"] and not found["command"]:
            return False, last, mended
    return False, "never ends", mended


def check_case(mend, data, name):
    files, command, expected = CASES[name]
    ran, last, mended = attempt(mend, files, command, [data])
    expected = expected.replace("{given}", data) if expected is not None else None
    if (ran and last == expected) if expected is not None else (not ran and not mended):
        return None
    return f"{'ran' if ran else 'failed'}, {last!r}, not {expected!r}; mended {mended}"


def check_failure(mend, data, name):
    files, text, wanted = FAILURES[name]
    here = repository(files)
    told = told_by(mend, here, {"command": "python a.py", "text": text.replace("{here}", str(here)), "data": [data]})
    after = {path: (here / path).read_bytes().decode() for path in files}
    expected = {**files, **{path: content.replace("{here}", str(here)) for path, content in wanted.items()}}
    if after == expected and bool(told["mended"]) == bool(wanted):
        return None
    return f"{told}: {({path: after[path] for path in after if after[path] != expected[path]})}"


def check_arguments(mend, data, key):
    command, names = key
    here = repository({"a.py": ""})
    told = told_by(mend, here, {"command": command, "text": f"a.py: error: the following arguments are required: {names}", "data": [data]})
    wanted = ARGUMENTS[key]
    wanted = wanted and wanted.replace("{here}", str(here)).replace("{data}", os.path.dirname(data))
    return None if told["command"] == wanted else f"{told['command']}, not {wanted}"


def collected(mend, here, submission):
    told = subprocess.run([sys.executable, os.path.join(os.path.dirname(mend), "collect.py"), str(here / submission), str(here / ".git" / "since")],
                          cwd=here, capture_output=True, text=True)
    if told.returncode != 0:
        raise AssertionError(told.stderr)
    return json.loads(told.stdout)["found"]


def check_written(mend, data, key):
    here = repository({"old_predictions.csv": "old"})
    since = here / ".git" / "since"
    since.write_text("")
    os.utime(here / "old_predictions.csv", (1, 1))
    for number, name in enumerate(key):
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ascii(name))
        later = os.stat(since).st_mtime + 10 + number
        os.utime(path, (later, later))
    found = collected(mend, here, "p.csv")
    if found == WRITTEN[key] and (found is None or (here / "p.csv").read_text() == (here / found).read_text()):
        return None
    return f"{found}, not {WRITTEN[key]}"


def check_directory(mend, data, is_new):
    """A directory at the submission's path counts where it has no ending and something in it is new."""
    here = repository({"answers/a.txt": "a"})
    since = here / ".git" / "since"
    since.write_text("")
    moment = os.stat(since).st_mtime + (10 if is_new else -10)
    os.utime(here / "answers" / "a.txt", (moment, moment))
    found = collected(mend, here, "answers")
    return None if found == (str(here / "answers") if is_new else None) else f"found {found}"


def check_survey(mend, data, _):
    """What lies there is told whatever it is called and however it is written."""
    here = repository({
        "train.py": "import argparse\n" + "x = 1\n" * 20_000 + "p = argparse.ArgumentParser()\np.add_argument('--rows', required=True)\np.parse_args()\n",
        "predict.py": "print 'x'\n", "train_lib.py": "import warnings\nwarnings.filterwarnings('ignore')\ndef f():\n    pass\n",
        "tool.py": "\ufeffprint(1)\n", "guarded.py": "\ufeffif __name__ == '__main__':\n    pass\n", "deep.py": "x = " + "-" * 100_000 + "1\n",
        "pyproject.toml": "project = 3\n[tool.poetry.dependencies]\npython = '>=3'\nnumpy = '^2'\nzzz = {version = '1.0'}\n",
        "tests/test_a.py": "if __name__ == '__main__':\n    pass\n",
    })
    (here / "odd\udcff.py").write_text("if __name__ == '__main__':\n    pass\n")
    subprocess.run(["git", "add", "-A"], cwd=here, check=True)
    told = subprocess.run([sys.executable, os.path.join(os.path.dirname(mend), "survey.py")], cwd=here, capture_output=True, text=True)
    if told.returncode != 0:
        return told.stderr
    found = json.loads(told.stdout)
    entries = {entry["path"]: [option["names"] for option in entry["options"]] for entry in found["entries"]}
    wanted = {"guarded.py": [], "predict.py": [], "train.py": [["--rows"]]}
    needs = {need["name"]: need["specifier"] for need in found["requirements"]}
    bad = {entry["file"] for entry in found["unreadable"]}
    if entries == wanted and needs == {"numpy": "^2", "zzz": "1.0"} and {"predict.py", "deep.py"} >= bad >= {"predict.py"}:
        return None
    return f"{entries}, {needs}, {bad}"


def main():
    mend = os.path.abspath(sys.argv[1])
    given = pathlib.Path(os.path.realpath(tempfile.mkdtemp())) / "given_test.csv"
    given.write_text("a\n1\n2\n3\n")
    todo = [(check, key) for check, keys in (
        (check_case, CASES), (check_failure, FAILURES), (check_arguments, ARGUMENTS), (check_written, WRITTEN),
        (check_directory, (True, False)), (check_survey, ("a survey",))) for key in keys]
    todo = [(check, key) for check, key in todo if len(sys.argv) < 3 or sys.argv[2] in str(key)]

    def checked(one):
        check, key = one
        try:
            return check(mend, str(given), key)
        except Exception as error:  # One case must not hide the others.
            return repr(error)

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (check, key), wrong in zip(todo, pool.map(checked, todo)):
            if wrong:
                bad += 1
                print(f"{ascii(key)}: {wrong}")
    print(f"{len(todo)} cases, {bad} bad")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
