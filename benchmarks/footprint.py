"""What the package costs before it does anything: import time, and bytes on disk."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks import common


class Import:
    """`import bitnet_core` in a fresh interpreter, with and without numpy's share."""

    version = "1"
    timeout = 120
    rounds = 2
    repeat = 8
    number = 1
    warmup_time = 0
    params = [["everything", "without numpy"]]
    param_names = ["counted"]

    def timeraw_import(self, counted):
        return "import bitnet_core", "import numpy" if counted == "without numpy" else ""


class Size:
    """Bytes of what is installed."""

    version = "1"
    timeout = 60
    unit = "bytes"

    def track_shared_object(self):
        spec = importlib.util.find_spec("bitnet_core._native")
        return Path(spec.origin).stat().st_size

    def track_package(self):
        package = Path(common.need("bitnet_core").__file__).parent
        files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files, "the package has no files"
        return sum(path.stat().st_size for path in files)
