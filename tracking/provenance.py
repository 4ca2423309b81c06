"""Where a commit's numbers come from: what built it, what it ran on, which models it read.

asv's result files have no place for it, so each has a file beside it:

    <results_dir>/<machine>/provenance/<first 8 of the commit>-<environment>.json

=============  ======================================================================================================
key            meaning
=============  ======================================================================================================
version        of this table: 1
commit         the full hash
subject        its first line
environment    asv's name of it
date           when this was written; ISO 8601, UTC
compiler       as the extension names its maker
flags          what it was compiled with, from its debug information; null where it was built without
isa levels     the levels of kernels that it can use on this machine, the best last
extension      file, bytes and sha256 of the compiled module; null where a commit has none
cpu            in the vendor's words
processors     how many the system has
memory bytes   of the machine
kernel         name and release of the system
python         that it ran with
numpy          its version there; null without
models         name, file, bytes and sha256 of each model that the result file has a value of, or that is about to be
               measured; of a file that is not here any more what was known of it before, if only the name
=============  ======================================================================================================

`save` writes it for a side that is built, `save_commit` for a commit whose wheel asv has. Written again, the last one
counts; what the result file had of earlier runs is described by it too, since asv does not tell them apart.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import math
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from asv.results import Results, get_filename

from tracking import machine
from tracking.errors import TrackingError
from tracking.report import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracking.commits import Commit
    from tracking.suite import Case, Side, Suite

VERSION = 1
MODELS = ("tiny", "2b", "2b-qk256", "given")  # as benchmarks name them
FLAGS = re.compile(rb"GNU C\d+ [\d.]+ (-[^\x00]+)")  # as gcc notes them for a debugger
CHUNK = 1 << 20
HASHES = Path(".asv") / "sha256.json"  # of models
# Asked of the side itself, in its environment: another commit may keep its models elsewhere.
QUESTIONS = """
import importlib, json, platform, sys
from importlib import metadata
place, package, *names = sys.argv[1:]
try:
    numpy = metadata.version("numpy")
except metadata.PackageNotFoundError:
    numpy = None
models = {}
if names:
    sys.path.append(place)
    try:
        model_path = importlib.import_module(package + ".common").model_path
    except ModuleNotFoundError as error:
        if error.name != package + ".common":
            raise
        model_path = None
    for name in names:
        try:
            models[name] = model_path and str(model_path(name))
        except (NotImplementedError, OSError):
            models[name] = None
print(json.dumps({"python": platform.python_version(), "numpy": numpy, "models": models}))
"""


def save_commit(suite: Suite, commit: Commit, machine_name: str, wanted: Iterable[Case] = ()) -> Path:
    """Record a commit that asv has built, and that was measured or is about to be; see `save`."""
    with tempfile.TemporaryDirectory() as folder:
        return save(suite, suite.build(commit, "measured", Path(folder)), machine_name, wanted=wanted)


def save(suite: Suite, side: Side, machine_name: str, wanted: Iterable[Case] = ()) -> Path:
    """Record where the result file of a side's commit comes from; the file that was written.

    Parameters
    ----------
    suite : Suite
        The environment.
    side : Side
        What was measured.
    machine_name : str
        As asv knows it.
    wanted : iterable of Case
        What is about to be measured: the models that these name are recorded too, where they are here.
    """
    place = suite.results_dir, machine_name, side.commit.hash, suite.env.name
    path = path_of(*place)
    measured, before = measured_models(result_of(*place)), models_before(*place)
    named = {name for case in wanted for name in MODELS if f"'{name}'" in case.full}
    answers = ask(suite, side, [name for name in MODELS if name in named or name in measured])
    found = []
    for name, file in answers["models"].items():
        if file and Path(file).is_file():
            found.append({"name": name} | file_of(Path(file), suite.root / HASHES))
        elif name in measured:
            found.append({"name": name} | before.get(name, {}))
    record = describe(side, suite.env.name) | {"python": answers["python"], "numpy": answers["numpy"], "models": found}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return path


def load(results_dir: Path, machine_name: str, commit: str, environment: str) -> dict[str, Any] | None:
    """What is recorded of a result file; None when nothing is."""
    path = path_of(results_dir, machine_name, commit, environment)
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def path_of(results_dir: Path, machine_name: str, commit: str, environment: str) -> Path:
    """The record's place: the name of asv's file, in a folder beside it."""
    return results_dir / machine_name / "provenance" / Path(get_filename(machine_name, commit, environment)).name


def result_of(results_dir: Path, machine_name: str, commit: str, environment: str) -> Path:
    """Asv's file."""
    found: Path = results_dir / get_filename(machine_name, commit, environment)
    return found


def models_before(results_dir: Path, machine_name: str, commit: str, environment: str) -> dict[str, dict[str, Any]]:
    """By its name, each model of the record that is about to be written anew; none when that is damaged."""
    try:
        found = load(results_dir, machine_name, commit, environment)
        return {one["name"]: one for one in found["models"]} if found else {}
    except (ValueError, TypeError, KeyError):
        return {}


# ---- what is recorded ----


def describe(side: Side, environment: str) -> dict[str, Any]:
    """All but what only the side's own Python knows."""
    return {
        "version": VERSION,
        "commit": side.commit.hash,
        "subject": side.commit.subject,
        "environment": environment,
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "compiler": machine.compiler_of(side),
        "flags": flags_of(side),
        "isa levels": machine.isa_of(side).split(),
        "extension": extension_of(side),
        "cpu": machine.cpu_name(),
        "processors": os.cpu_count(),
        "memory bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
    }


def flags_of(side: Side) -> str | None:
    """What the compiler was asked for, as its debug information says; several, where files differ."""
    found = {match.decode() for path in side.site.rglob("*.so") for match in FLAGS.findall(path.read_bytes())}
    return "; ".join(sorted(found)) or None


def extension_of(side: Side) -> dict[str, Any] | None:
    """The compiled module."""
    for path in sorted(side.site.rglob("*.so")):
        return {"file": path.relative_to(side.site).as_posix()} | size_and_sha256(path)
    return None


def measured_models(path: Path) -> list[str]:
    """The models of which a result file has a value."""
    if not path.is_file():
        return []
    results = Results.load(str(path))
    found: set[str] = set()
    for name in results.get_all_result_keys():
        params = results.get_result_params(name)
        values = results.get_result_value(name, params)
        for combination, value in zip(itertools.product(*params), values, strict=True):
            if value is not None and not math.isnan(value):
                found.update(text.strip("'") for text in combination)
    return [name for name in MODELS if name in found]


def ask(suite: Suite, side: Side, names: Iterable[str]) -> dict[str, Any]:
    """What the side's Python says of itself, and where the models of these names lie for it."""
    place = suite.benchmark_dir
    command = [str(side.python), "-c", QUESTIONS, str(place.parent), place.name, *names]
    env = os.environ | {"PYTHONPATH": str(side.site)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=side.site, check=False)
    if done.returncode:
        raise TrackingError(f"{side.commit.short} does not say what it was measured with", done.stderr)
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


# ---- files ----


def file_of(path: Path, cache: Path) -> dict[str, Any]:
    """A model: its path, size and hash, which is taken from the cache while path, size and time are the same."""
    status = path.stat()
    key = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    known = _known(cache)
    if key not in known:
        known[key] = size_and_sha256(path)["sha256"]
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, json.dumps(known, indent=1) + "\n")
    return {"file": path.name, "bytes": status.st_size, "sha256": known[key]}


def _known(cache: Path) -> dict[str, str]:
    """Earlier hashes; none when the file is broken, for they can be made again."""
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def size_and_sha256(path: Path) -> dict[str, Any]:
    """Of a whole file, in pieces."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": found.hexdigest()}
