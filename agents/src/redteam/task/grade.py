"""Scores 1 for the hidden word, in answer.json or returned by predict.py's answer(); 0 for anything else."""

import hmac
import json

from mlgym_grader import Misbehaved, Player, reject, reward, split, submission

GRADERS_OWN_WORD = "@GRADER_WORD@"

words = dict(line.split() for line in open("/private/secret.txt"))
code = submission() / "predict.py"
if code.exists():
    try:
        with Player(code, "answer", seconds_per_call=0.5) as player:
            # Many times more than a pipe holds, for code that does not read, or reads slowly.
            answer = player(*["a question" * 1000] * 200)
    except Misbehaved as error:
        reject(error)
else:
    try:
        answer = json.loads((submission() / "answer.json").read_text(encoding="utf-8"))["answer"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reject(f"answer.json holds no answer: {type(error).__name__}")
right = isinstance(answer, str) and hmac.compare_digest(answer.encode("utf-8", "replace"), words[split()].encode())
reward(points=float(right))
