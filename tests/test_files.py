"""Files that appear whole or not at all."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from bitnet_core.files import AtomicFile, cache_dir, check_free_space, locked_folder


def test_file_appears_when_complete(tmp_path):
    path = tmp_path / "out.bin"
    with AtomicFile(path) as file:
        file.write(b"abc")
        assert not path.exists()
        assert [p.name[0] for p in tmp_path.iterdir()] == ["."]  # hidden from globs
    assert path.read_bytes() == b"abc"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_exception_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def write_half(file):
        file.write(b"new")
        raise error

    with pytest.raises(error), AtomicFile(path) as file:
        write_half(file)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_flush_removes_the_temporary_file(tmp_path, monkeypatch):
    def no_fsync(_fd):
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", no_fsync)
    with pytest.raises(OSError, match="input/output"), AtomicFile(tmp_path / "out.bin") as file:
        file.write(b"abc")
    assert list(tmp_path.iterdir()) == []


def test_symbolic_link_stays(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with AtomicFile(tmp_path / "link") as file:
        file.write(b"abc")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"abc"


def test_umask_applies(tmp_path):
    old = os.umask(0o027)
    try:
        with AtomicFile(tmp_path / "out.bin"):
            pass
    finally:
        os.umask(old)
    assert (tmp_path / "out.bin").stat().st_mode & 0o777 == 0o640


def test_only_regular_files_are_replaced(tmp_path):
    with pytest.raises(OSError, match="not a regular file"):
        AtomicFile(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        AtomicFile(os.devnull)
    with pytest.raises(FileNotFoundError, match="folder"):
        AtomicFile(tmp_path / "no" / "out.bin")


def test_free_space(tmp_path):
    check_free_space(tmp_path / "out.bin", 1)
    with pytest.raises(OSError, match=r"needs 1,0\d\d,\d\d\d,\d\d\d.\d MiB, the disk has") as caught:
        check_free_space(tmp_path / "out.bin", 2**70 // 2**20)
    assert caught.value.filename == str(tmp_path)


def test_cache_dir(monkeypatch):
    monkeypatch.delenv("BITNET_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == Path("/home/someone/.cache/bitnet-core")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/bitnet-core")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_dir() == Path("/home/someone/Library/Caches/bitnet-core")
    monkeypatch.setenv("BITNET_CACHE_DIR", "~/mine")
    assert cache_dir() == Path("/home/someone/mine")


def _hold(folder, entered, seconds):
    with locked_folder(folder, ".*"):
        entered.set()
        time.sleep(seconds)


def test_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    folder = tmp_path / "made" / "here"
    spawn = multiprocessing.get_context("spawn")
    entered = spawn.Event()
    holder = spawn.Process(target=_hold, args=(folder, entered, 0.3))
    holder.start()
    assert entered.wait(30)
    begin = time.monotonic()
    with locked_folder(folder, ".*"):
        assert time.monotonic() - begin > 0.1
    holder.join()
    assert holder.exitcode == 0


def test_what_a_killed_writer_left_is_removed(tmp_path):
    pytest.importorskip("fcntl")
    orphan, other = tmp_path / ".model.gguf.1234abcd.tmp", tmp_path / "model.gguf"
    orphan.write_bytes(b"half")
    other.write_bytes(b"whole")
    with locked_folder(tmp_path, r"model\.gguf"):
        assert list(tmp_path.iterdir()) == [other]


def test_temporary_files_of_others_stay(tmp_path):
    pytest.importorskip("fcntl")
    for name in (".x.tmp", ".model.gguf.tmp", ".model.gguf.1234abcg.tmp", ".notes.txt.1234abcd.tmp"):
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / ".model.gguf.00000000.tmp").mkdir()
    (tmp_path / ".model.gguf.11111111.tmp").symlink_to(tmp_path / ".x.tmp")
    before = sorted(tmp_path.iterdir())
    with locked_folder(tmp_path, r"model\.gguf"):
        assert sorted(tmp_path.iterdir()) == before
