"""The file of rounds: what an interruption, a full disk or other benchmarks leave of it."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tracking.errors import TrackingError
from tracking.rounds import Round, Store

if TYPE_CHECKING:
    from pathlib import Path

KEY = {"base": "a", "head": "b", "suite": "s"}


def some(n: int) -> Round:
    low = {"base": 1.0, "head": 2.0}
    moved = {"base": {"page faults": 1.0}, "head": {"page faults": float(n)}}
    return Round(f"b{n}", [(1.0, 2.0), (1.5, 2.5)], low, moved, seconds=0.5)


def test_rounds_come_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "rounds.jsonl", KEY)
    rounds = [some(0), some(1), Round("b0", failed={"head": "so"}), Round("b2", skipped={"base": "no"})]
    for one in rounds:
        store.add(one)
    again = Store(tmp_path / "rounds.jsonl", KEY)
    assert again.rounds == [rounds[0], rounds[2], rounds[1], rounds[3]]
    assert again.seconds == 1.0
    assert again.by_benchmark == {"b0": [rounds[0], rounds[2]], "b1": [rounds[1]], "b2": [rounds[3]]}
    assert [one.measured for one in again.rounds] == [True, False, True, False]
    assert again.rounds[0].values("head") == [2.0, 2.5]


def test_a_round_takes_the_place_of_one_that_could_not_run(tmp_path: Path) -> None:
    store = Store(tmp_path / "rounds.jsonl", KEY)
    store.add(Round("b1", skipped={"base": "no model"}))
    store.add(some(1))
    store.add(some(1))
    for found in (store, Store(tmp_path / "rounds.jsonl", KEY)):
        assert found.by_benchmark == {"b1": [some(1), some(1)]}


def test_what_was_spent_is_what_was_said_last(tmp_path: Path) -> None:
    store = Store(tmp_path / "rounds.jsonl", KEY)
    assert store.spent == 0.0
    for seconds in (3.0, 7.5):
        store.spend(seconds)
        store.add(some(1))
    assert (store.spent, Store(tmp_path / "rounds.jsonl", KEY).spent) == (7.5, 7.5)


@pytest.mark.parametrize("cut", [1, 20, 90])
def test_half_a_line_is_dropped_and_the_next_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rounds.jsonl"
    store = Store(path, KEY)
    store.add(some(0))
    store.add(some(1))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Store(path, KEY)
    assert again.rounds == [some(0)]
    again.add(some(2))
    assert Store(path, KEY).rounds == [some(0), some(2)]


def test_what_is_left_of_a_long_line_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    store = Store(path, KEY)
    path.write_bytes(path.read_bytes() + b"x" * 200_000)
    store.add(some(0))
    assert len(path.read_bytes().splitlines()) == 2
    assert Store(path, KEY).rounds == [some(0)]


def test_a_file_that_was_cut_in_its_first_line_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text('{"key": {"base"')
    store = Store(path, KEY)
    store.add(some(0))
    assert Store(path, KEY).rounds == [some(0)]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    for text in ("nonsense\n", "[]\n", '{"key": {}}\n3\n'):
        path.write_text(text)
        with pytest.raises(TrackingError, match=r"rounds\.jsonl is damaged.*remove it"):
            Store(path, KEY)


def test_rounds_of_other_benchmarks_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    Store(path, KEY).add(some(0))
    other = Store(path, KEY | {"suite": "t"})
    assert other.rounds == []
    assert other.set_aside is not None
    assert len(other.set_aside.read_text().splitlines()) == 2
    other.add(some(1))
    back = Store(path, KEY)
    assert back.rounds == [some(0)], "what waited is gone on with"
    assert not other.set_aside.exists()
    assert Store(path, KEY | {"suite": "t"}).rounds == [some(1)]


def test_who_begins_again_forgets_rounds_of_the_key_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "rounds.jsonl", KEY | {"suite": "t"}
    Store(path, KEY).add(some(0))
    Store(path, other).add(some(1))
    assert Store(path, KEY, fresh=True).rounds == []
    assert Store(path, other).rounds == [some(1)]
    assert Store(path, KEY).rounds == []


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rounds.jsonl"
    store = Store(path, KEY)
    store.add(some(0))
    whole = path.read_bytes()
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10], offset)  # some of it still fits
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", lambda *args: full(*args) if args[2] == len(whole) else full(args[0], b"", 0))
    with pytest.raises(TrackingError, match=r"No space left.*1 rounds are kept.*same command"):
        store.add(some(1))
    monkeypatch.undo()
    assert path.read_bytes() == whole
    assert store.rounds == [some(0)]
    store.add(some(1))
    assert Store(path, KEY).rounds == [some(0), some(1)]


def test_a_line_is_on_the_disk_before_the_round_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "rounds.jsonl", KEY)
    synced: list[Any] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((len(store.rounds), os.fstat(fd).st_size)))
    store.add(some(0))
    size = (tmp_path / "rounds.jsonl").stat().st_size
    assert synced == [(0, size)]
    assert json.loads((tmp_path / "rounds.jsonl").read_text().splitlines()[1])["full"] == "b0"
