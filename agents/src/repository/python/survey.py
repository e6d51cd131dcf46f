"""survey.py: says as JSON what lies in the repository of the working directory.

Nothing of the repository is imported or run: its files are read, and Python's are parsed. Only what is installed beside it is
imported, to tell which of the names that the files use are not there any more.
"""

import ast
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

MOST_FILES = 5_000
MOST_TEXT = 40_000
MOST_LOST = 40
GIVEN = pathlib.Path("/data")


def listed():
    """The tracked files; every file where there is no repository."""
    known = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True)
    if known.returncode == 0 and known.stdout:
        names = [name for name in known.stdout.split("\0") if name]
    else:
        names = []
        for root, directories, files in os.walk("."):
            directories[:] = [name for name in directories if not name.startswith(".")]
            names += [os.path.relpath(os.path.join(root, name)) for name in files]
    return sorted(name for name in names if pathlib.Path(name).is_file())[:MOST_FILES]


def text_of(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace")[:MOST_TEXT]
    except OSError:
        return ""


def requirements(files):
    """What its files say that it needs, with the version that is installed."""
    said = {}
    for name in files:
        base = os.path.basename(name)
        lines = []
        if re.fullmatch(r"requirements.*\.(txt|in)", base):
            lines = text_of(name).splitlines()
        elif base == "pyproject.toml":
            import tomllib

            try:
                parsed = tomllib.loads(text_of(name))
            except tomllib.TOMLDecodeError:
                continue
            lines = parsed.get("project", {}).get("dependencies", [])
        elif base in ("setup.py", "setup.cfg"):
            listed_there = re.search(r"install_requires\s*=\s*(\[.*?\]|(?:\n[ \t]+\S.*)+)", text_of(name), re.S)
            if listed_there:
                quoted = re.findall(r"['\"]([^'\"]+)['\"]", listed_there[1])
                lines = quoted or [line.strip() for line in listed_there[1].splitlines()]
        for line in lines:
            match = re.match(r"\s*([A-Za-z][\w.-]*)\s*(?:\[[^]]*\])?\s*([^;#]*)", str(line))
            if match and "://" not in str(line):
                said.setdefault(match[1].lower().replace("_", "-"), match[2].strip())
    found = []
    for name, specifier in said.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        found.append({"name": name, "specifier": specifier, "installed": installed})
    return found


def is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def imported_as(tree):
    """What names of a file stand for: modules, and things that were taken out of them."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                names[item.asname or item.name.split(".")[0]] = item.name if item.asname else item.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for item in node.names:
                names[item.asname or item.name] = f"{node.module}.{item.name}"
    return names


def resolves(dotted, known={}):
    """Tells whether a dotted name can be had from what is installed; `None` where its top is not there at all."""
    if dotted not in known:
        parts = dotted.split(".")
        known[dotted] = None
        for cut in range(len(parts), 0, -1):
            try:
                thing = importlib.import_module(".".join(parts[:cut]))
            except Exception:  # An import may fail in any way; it is not there then.
                continue
            known[dotted] = True
            for part in parts[cut:]:
                try:
                    thing = getattr(thing, part)
                except Exception:
                    known[dotted] = False
                    break
            break
    return known[dotted]


def lost_names(name, tree, local):
    """The lines that take names from installed modules which do not have them."""
    found = []
    names = imported_as(tree)
    is_ours = lambda dotted: dotted.split(".")[0] in local
    for node in ast.walk(tree):
        dotted = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            dotted = [f"{node.module}.{item.name}" for item in node.names if item.name != "*"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            dotted = [f"{names[node.value.id]}.{node.attr}"]
        for whole in dotted:
            # Only what modules lack can be told; what objects lack shows when it is run.
            if not is_ours(whole) and resolves(whole) is False:
                found.append(f"{name}:{node.lineno}: {whole}")
    return found


def options_of(tree):
    """The arguments that it gives to argparse, as far as they are written out."""
    found = []
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if not (is_call and node.func.attr == "add_argument"):
            continue
        names = [item.value for item in node.args if isinstance(item, ast.Constant) and isinstance(item.value, str)]
        if not names:
            continue
        more = {word.arg: word.value for word in node.keywords if word.arg}

        def constant(word):
            value = more.get(word)
            return value.value if isinstance(value, ast.Constant) else None

        is_positional = not names[0].startswith("-")
        is_needed = constant("required") is True or (is_positional and constant("nargs") not in ("?", "*"))
        found.append({"names": names, "needed": is_needed and "default" not in more})
    return found


def has_guard(tree):
    for node in tree.body:
        if isinstance(node, ast.If) and "__name__" in ast.dump(node.test):
            return True
    return False


def module_name(name, files):
    """The name for `python -m`, where it lies in a package."""
    parts = pathlib.Path(name).with_suffix("").parts
    if len(parts) < 2 or f"{parts[0]}/__init__.py" not in files:
        return None
    return ".".join(parts[:-1] if parts[-1] == "__main__" else parts)


def main():
    files = listed()
    local = {pathlib.Path(name).stem for name in files if name.endswith(".py")}
    local |= {part for name in files if name.endswith(".py") for part in pathlib.Path(name).parts[:-1]}
    entries, missing, unreadable, lost = [], {}, [], []
    for name in [name for name in files if name.endswith(".py")]:
        try:
            tree = ast.parse(text_of(name))
        except (SyntaxError, ValueError) as error:
            unreadable.append({"file": name, "reason": str(error)})
            continue
        lost += lost_names(name, tree, local)
        lines = text_of(name).splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                tops = [item.name.split(".")[0] for item in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                tops = [node.module.split(".")[0]]
            else:
                continue
            for top in tops:
                if top not in local and top not in sys.stdlib_module_names and not is_there(top):
                    missing.setdefault(top, []).append(f"{name}:{node.lineno}: {lines[node.lineno - 1].strip()}")
        if has_guard(tree) and not re.search(r"(^|/)(tests?/|test_|conftest|setup\.py)", name):
            entries.append({"path": name, "module": module_name(name, files), "options": options_of(tree)})
    readme = next((name for name in files if re.fullmatch(r"readme(\.\w+)?", name, re.I)), None)
    makefile = next((name for name in files if name.lower() == "makefile"), None)
    targets = re.findall(r"^([A-Za-z][\w-]*):(?!=)", text_of(makefile), re.M) if makefile else []
    given = sorted(str(path) for path in GIVEN.rglob("*") if path.is_file())[:200]
    print(json.dumps({
        "files": len(files), "python": sum(name.endswith(".py") for name in files),
        "readme": text_of(readme) if readme else "", "targets": targets, "given": given, "entries": entries,
        "requirements": requirements(files), "unreadable": unreadable,
        "missing": [{"module": module, "lines": lines[:6]} for module, lines in sorted(missing.items())],
        "lost": sorted(set(lost))[:MOST_LOST],
    }))


if __name__ == "__main__":
    main()
