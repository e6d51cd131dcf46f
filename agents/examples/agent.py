"""A whole agent for `mlgym eval --agent command --command "python agent.py"`: runs the task's baseline and submits."""
import json
import sys


def hear():
    """Reads what the host says next."""
    return json.loads(sys.stdin.readline())


def act(kind, **arguments):
    """Has one action carried out and returns what came of it."""
    print(json.dumps({"type": kind, **arguments}), flush=True)
    word = hear()
    if word["type"] == "error":
        sys.exit(f"not an action: {word['message']}")
    return word["observation"]


reset = hear()
print("task:", reset["task"], "with", reset["remaining"], file=sys.stderr)
seen = act("shell", command="python baseline.py", timeout=60)
if seen.get("exit_code") != 0:
    sys.exit(seen.get("stderr", {}).get("content", "the baseline was killed"))
score = act("validate").get("validation")
print("validated:", score, file=sys.stderr)
act("submit")
