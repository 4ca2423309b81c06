"""What asv calls a machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tracking import machine
from tracking.errors import TrackingError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_machine_is_named_as_asv_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "node", lambda: "host")
    monkeypatch.setenv("HOME", str(tmp_path))
    told = tmp_path / ".asv-machine.json"
    for names, expected in {(): "host", ("a",): "a", ("a", "b"): "host", ("a", "host"): "host"}.items():
        told.write_text(json.dumps({"version": 1} | {name: {} for name in names}), encoding="utf-8")
        assert machine.asv_name() == expected
        assert machine.asv_name("c") == "c"
    for damaged in ("{", "[]"):
        told.write_text(damaged, encoding="utf-8")
        assert machine.asv_name() == "host"
    with pytest.raises(TrackingError, match="'my box' is no name for a machine"):
        machine.asv_name("my box")
