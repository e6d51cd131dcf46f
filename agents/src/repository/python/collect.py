"""collect.py SUBMISSION SINCE: puts what a program wrote where the submission is looked for.

SINCE is a file made before the program was started. Prints as JSON whether a submission lies there and where it was found.
"""

import json
import os
import pathlib
import re
import shutil
import sys

SKIPPED = {".git", "__pycache__", ".venv", "node_modules"}


def written(since, ending):
    """The files below the working directory that are newer, the newest first."""
    found = []
    for root, directories, files in os.walk("."):
        directories[:] = [name for name in directories if name not in SKIPPED]
        for name in files:
            path = pathlib.Path(root, name)
            if path.suffix == ending and not path.is_symlink() and path.stat().st_mtime_ns >= since:
                found.append(path)
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def main():
    submission, since = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).stat().st_mtime_ns
    is_new = submission.is_dir() or (submission.is_file() and submission.stat().st_mtime_ns >= since)
    found = str(submission) if is_new else None
    if not is_new and submission.suffix:
        others = written(since, submission.suffix)
        same = [path for path in others if path.name == submission.name]
        alike = [path for path in others if re.search(r"pred|submi|answer|result|forecast|output", path.stem, re.I)]
        if (choice := (same or alike or [None])[0]) is not None:
            submission.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(choice, submission)
            found = os.path.relpath(choice)
    print(json.dumps({"found": found}))


if __name__ == "__main__":
    main()
