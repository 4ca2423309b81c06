"""Two trees of asv's results made one: what either has is in it, and of the same measurement the newer.

A number is replaced by a newer one of its version, never by a failure or by another version than benchmarks.json has.

A tree is a dict of path to bytes, as under .asv/results: benchmarks.json, MACHINE/machine.json,
MACHINE/COMMIT-ENVIRONMENT.json, MACHINE/skipped/COMMIT.json, MACHINE/provenance/COMMIT-ENVIRONMENT.json, and whatever
else lies beside those.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

BENCHMARKS, MACHINE = "benchmarks.json", "machine.json"
# Two files of one name are of one measurement only when these agree.
IDENTITY = ("commit_hash", "env_name", "params", "python", "requirements", "env_vars")
COLUMNS_OF_ALL = frozenset({"params", "version", "started_at", "duration", "profile"})  # the others: one a combination


class Unmergeable(Exception):  # noqa: N818  # the other files go on
    """Why a file is left as it is, in words that follow its name."""


def trees(
    base: dict[str, bytes], added: dict[str, bytes], *, prefer_added: bool = False
) -> tuple[dict[str, bytes], list[str]]:
    """Both together, and a line for each file that cannot be merged: it stays as it is in the base.

    Where neither is newer, the description of a benchmark and files that are not asv's are those of the base, or of
    what is added if that is preferred.
    """
    merged, problems = dict(base), []
    strangers = {path.rpartition("/")[0] for path in added if _other_machine(path, base, added)}
    problems += [
        f"{name}/{MACHINE} describes another machine on the other side: nothing of that name is merged, rename one"
        for name in sorted(strangers)
    ]
    for path in sorted(added, key=lambda path: path != BENCHMARKS):  # its versions decide about those of results
        data = added[path]
        if path.split("/")[0] in strangers or data == base.get(path):
            continue
        try:
            if path not in base:
                merged[path] = data
            elif is_result(path):
                found = results(parsed(base[path]), parsed(data), _versions(merged))
                merged[path] = _same_or_new(found, base[path], data)
            elif path == BENCHMARKS:
                ours, theirs = (data, base[path]) if prefer_added else (base[path], data)
                found = benchmarks(parsed(ours), parsed(theirs))
                merged[path] = _same_or_new(found, base[path], data, indent=4)
            elif is_skipped(path):
                ours, theirs = (data, base[path]) if prefer_added else (base[path], data)
                merged[path] = _same_or_new(parsed(theirs) | parsed(ours), base[path], data, indent=1)
            elif is_provenance(path):
                ours, theirs = (data, base[path]) if prefer_added else (base[path], data)
                merged[path] = _same_or_new(provenance(parsed(ours), parsed(theirs)), base[path], data, indent=1)
            elif prefer_added:
                merged[path] = data
        except Unmergeable as error:
            problems.append(f"{path} {error}")
    return merged, problems


def is_result(path: str) -> bool:
    """Whether asv reads a path as what it measured of a commit."""
    parts = path.split("/")
    return len(parts) == 2 and parts[1].endswith(".json") and parts[1] != MACHINE


def is_skipped(path: str) -> bool:
    """Whether a path names what could not run on a commit, with the version of each (tracking/history.py)."""
    return path.count("/") == 2 and path.split("/")[1] == "skipped" and path.endswith(".json")


def is_provenance(path: str) -> bool:
    """Whether a path says where a commit's numbers come from (tracking/provenance.py)."""
    return path.count("/") == 2 and path.split("/")[1] == "provenance" and path.endswith(".json")


def damage(path: str, data: bytes) -> str:
    """What is wrong with a file that asv could not read; "" when nothing is."""
    try:
        if path.endswith(".json"):
            found = parsed(data)
            if is_result(path):
                _rows(found)
    except Unmergeable as error:
        return str(error)
    return ""


def parsed(data: bytes) -> dict[str, Any]:
    """The JSON object of a file."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Unmergeable(f"is damaged ({error})") from None
    if not isinstance(found, dict):
        raise Unmergeable("is damaged (no JSON object)")
    return found


def results(base: dict[str, Any], added: dict[str, Any], versions: dict[str, Any]) -> dict[str, Any]:
    """The results of one commit, benchmark by benchmark, whose present versions are these."""
    for key in IDENTITY:
        if base.get(key) != added.get(key):
            raise Unmergeable(f"has another {key} on the other side: give that machine another name (MACHINE=)")
    old, new = _rows(base), _rows(added)
    rows = old | {
        name: _better(old[name], row, versions.get(name)) if name in old else row for name, row in new.items()
    }
    columns = list(dict.fromkeys([*base["result_columns"], *added["result_columns"]]))
    return base | {
        "result_columns": columns,
        "results": {name: _cut([row.get(column) for column in columns]) for name, row in sorted(rows.items())},
        "durations": base.get("durations", {}) | added.get("durations", {}),
    }


def benchmarks(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The descriptions of benchmarks; of two versions the higher, of one version ours."""
    merged = theirs | ours
    for name in ours.keys() & theirs.keys():
        both = ours[name], theirs[name]
        if all(isinstance(one, dict) for one in both):
            merged[name] = max(both, key=lambda one: _number(one.get("version")))  # the first of equals
    return dict(sorted(merged.items()))


def provenance(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Where numbers that both sides have come from: ours, and the models of both, since the rows are united."""
    models, others = _models(ours), _models(theirs)
    for name in models.keys() & others.keys():
        known = {one["sha256"] for one in (models[name], others[name]) if "sha256" in one}
        if len(known) > 1:
            raise Unmergeable(f"names another file for the model {name!r} on the other side: its numbers are of both")
        if "sha256" not in models[name]:
            models[name] = others[name]
    united = list((models | {name: one for name, one in others.items() if name not in models}).values())
    return ours | {"models": united} if united else ours


def left_out(tree: dict[str, bytes]) -> dict[str, int]:
    """Benchmarks of another version than benchmarks.json describes, with the number of commits that have such results.

    asv drops those without a word when it publishes.
    """
    known = _versions(tree)
    counts: dict[str, int] = {}
    for path, data in tree.items():
        if is_result(path):
            for name, row in _rows(parsed(data)).items():
                if row.get("version") and name in known and row["version"] != known[name]:
                    counts[name] = counts.get(name, 0) + 1
    return counts


# ---- one file ----


def _rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A results file's rows, by benchmark."""
    try:
        columns = found["result_columns"]
        return {name: dict(zip(columns, row, strict=False)) for name, row in found["results"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise Unmergeable(f"is damaged (no asv results: {error!r})") from None


def _models(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By its name, each model of a record of provenance."""
    try:
        return {one["name"]: dict(one) for one in record.get("models") or []}
    except (TypeError, KeyError, ValueError) as error:
        raise Unmergeable(f"is damaged (no record of models: {error!r})") from None


def _versions(tree: dict[str, bytes]) -> dict[str, Any]:
    """The present version of each benchmark."""
    known = parsed(tree[BENCHMARKS]) if BENCHMARKS in tree else {}
    return {name: one.get("version") for name, one in known.items() if isinstance(one, dict)}


def _better(base: dict[str, Any], added: dict[str, Any], version: Any) -> dict[str, Any]:
    """Of two rows that of the present version, else of the higher one; of one version, the newer."""
    if base.get("version") == added.get("version"):
        return _newer(base, added)
    return max(base, added, key=lambda row: (row.get("version") == version, _number(row.get("version")), _begun(row)))


def _newer(base: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Of two rows the one begun later; combinations that it has no number of are the other's."""
    old, new = sorted((base, added), key=_begun)
    cells_of_old, cells_of_new = _cells(old), _cells(new)
    axes = _united(new.get("params") or [], old.get("params") or [])
    if cells_of_old is None or cells_of_new is None or axes is None:
        return new
    columns = list(dict.fromkeys([*new, *old]))
    nothing = dict.fromkeys(columns) | {"result": math.nan}
    cells = []
    for combination in itertools.product(*axes):
        one, other = cells_of_new.get(combination, nothing), cells_of_old.get(combination, nothing)
        cells.append(one if _says(one["result"]) >= _says(other["result"]) else other)
    if cells == list(cells_of_new.values()):
        return new
    merged = new | {"params": axes}
    for column in set(columns) - COLUMNS_OF_ALL:
        of_all = [cell.get(column) for cell in cells]
        merged[column] = of_all if any(value is not None for value in of_all) else None
    return merged


def _cells(row: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]] | None:
    """Of each combination of a row's parameters what the columns say of it; None when their lengths do not fit."""
    combinations = list(itertools.product(*(row.get("params") or [])))
    columns = {name: row.get(name) or [None] * len(combinations) for name in {"result", *row} - COLUMNS_OF_ALL}
    if any(not isinstance(values, list) or len(values) != len(combinations) for values in columns.values()):
        return None
    return {
        combination: {name: values[i] for name, values in columns.items()} for i, combination in enumerate(combinations)
    }


def _united(ours: list[list[str]], theirs: list[list[str]]) -> list[list[str]] | None:
    """The parameters of both, ours in their order; None when one has more of them."""
    if len(ours) != len(theirs):
        return None
    return [list(dict.fromkeys([*one, *other])) for one, other in zip(ours, theirs, strict=True)]


def _says(value: Any) -> int:
    """How much a value does: nothing where it was skipped or not asked for, that it failed, or a number."""
    return 1 if value is None else 0 if _is_nan(value) else 2


def _begun(row: dict[str, Any]) -> float:
    return _number(row.get("started_at"))


def _other_machine(path: str, base: dict[str, bytes], added: dict[str, bytes]) -> bool:
    """Whether a path describes a machine, and both sides mean different ones."""
    return path.endswith(f"/{MACHINE}") and path in base and parsed(base[path]) != parsed(added[path])


def _number(value: Any) -> float:
    """For comparing: asv's times and our versions are numbers; anything else is the least."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return -math.inf


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cut(row: list[Any]) -> list[Any]:
    """Without the empty end, as asv writes it."""
    while row and row[-1] is None:
        row.pop()
    return row


def _same_or_new(found: dict[str, Any], *files: bytes, indent: int | None = None) -> bytes:
    """The file that says the same already, or a new one: what did not change keeps its bytes."""
    wanted = json.dumps(found, sort_keys=True)
    for file in files:
        if json.dumps(parsed(file), sort_keys=True) == wanted:
            return file
    return json.dumps(found, indent=indent).encode()
