"""Memory of this process, by kind."""

import mmap
import sys
import time

import numpy as np
import psutil
import pytest

from bitnet_core import memory

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the kinds exactly and can reset the peak")


def pages(n):
    """n bytes of touched memory in pages of their own: an allocator might hand out what it kept from earlier tests."""
    block = np.frombuffer(mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
    block[:] = 1
    return block


def test_total_is_the_resident_set():
    assert memory.current().total == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert memory.peak() >= 0.8 * memory.current().total


def test_allocated_memory_is_anonymous():
    with memory.Growth() as growth:
        block = pages(32 * MIB)
    assert 30 * MIB < growth.anonymous < 40 * MIB
    assert growth.file_backed < 4 * MIB
    assert growth.total == growth.anonymous + growth.file_backed
    assert growth.peak >= growth.total
    assert block[-1] == 1


@linux
def test_mapped_file_is_file_backed(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(32 * MIB))
    with memory.Growth() as growth, path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert not np.frombuffer(mapped, np.uint8)[::4096].any()
    assert 30 * MIB < growth.file_backed < 36 * MIB
    assert growth.anonymous < 4 * MIB
    assert growth.peak >= growth.file_backed


@linux
def test_peak_sees_what_was_freed():
    with memory.Growth() as growth:
        block = pages(64 * MIB)
        del block
    assert growth.peak_is_exact
    assert growth.peak > 60 * MIB
    assert growth.anonymous < 8 * MIB
    assert growth.peak_anonymous < 8 * MIB  # without samples only the end is known


@linux
def test_peak_of_an_earlier_block_is_forgotten():
    block = pages(64 * MIB)
    del block
    with memory.Growth() as growth:
        pass
    assert growth.peak < 8 * MIB


@linux
def test_samples_see_the_kind_of_a_peak():
    with memory.Growth(interval=0.001) as growth:
        block = pages(64 * MIB)
        time.sleep(0.1)
        del block
    assert growth.peak_anonymous > 60 * MIB
    assert growth.anonymous < 8 * MIB


def test_where_the_peak_cannot_be_reset_it_is_a_lower_bound(monkeypatch):
    """As on macOS: an older, higher peak hides that of the block."""
    monkeypatch.setattr(memory, "reset_peak", lambda: False)
    monkeypatch.setattr(memory, "peak", lambda: 10**15)
    with memory.Growth() as growth:
        block = pages(32 * MIB)
    assert not growth.peak_is_exact
    assert 30 * MIB < growth.peak < 40 * MIB
    assert block.size


def test_where_the_peak_cannot_be_reset_a_new_one_counts(monkeypatch):
    peaks = iter([10**9, 10**9 + 50 * MIB])
    monkeypatch.setattr(memory, "reset_peak", lambda: False)
    monkeypatch.setattr(memory, "peak", lambda: next(peaks))
    monkeypatch.setattr(memory, "current", lambda: memory.Usage(10**9, 0))
    with memory.Growth() as growth:
        pass
    assert growth.peak_is_exact
    assert growth.peak == 50 * MIB


def test_reset_that_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "no" / "clear_refs")
    assert not memory.reset_peak()


def test_other_systems_go_through_psutil(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    usage = memory.current()
    assert usage.anonymous > MIB
    assert usage.total == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert memory.peak() > 0
