"""What all tests share: the oracle's files, the levels of kernels that this machine can run, and which of them ran."""

from pathlib import Path

import pytest

from bitnet_core.kernels import isa_levels
from bitnet_core.synthetic import write_model

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture(params=isa_levels())
def isa(request):
    """Each level in turn; the test's id names it."""
    return request.param


@pytest.fixture(scope="session")
def vectors():
    return VECTORS


RAN, EMULATED = pytest.StashKey[set[str]](), pytest.StashKey[set[str]]()


def pytest_configure(config):
    config.stash[RAN], config.stash[EMULATED] = set(), set()


def pytest_report_header():
    return f"bitnet-core: levels of kernels under test: {', '.join(isa_levels())}"


def pytest_runtest_call(item):
    """A level has run when a test began that has it for its parameter ``isa``."""
    if hasattr(item, "callspec") and item.callspec.params.get("isa") in isa_levels():
        item.config.stash[RAN].add(item.callspec.params["isa"])


@pytest.fixture
def emulated_levels(request):
    """The set to which a test adds the levels whose kernels it ran with stand-ins for their instructions."""
    return request.config.stash[EMULATED]


def pytest_terminal_summary(terminalreporter, config):
    ran, emulated = config.stash[RAN], config.stash[EMULATED]
    if not ran and not emulated:
        return
    terminalreporter.section("levels of kernels")
    for level in isa_levels(supported_only=False):
        how = "ran" if level in ran else "not chosen" if level in isa_levels() else "skipped: not of this machine"
        terminalreporter.line(f"{level}: {how}{', ran emulated' if level in emulated else ''}")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A synthetic model of the tiny preset in i2_s, seed 42, for reading only."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", "tiny")


@pytest.fixture(scope="session")
def tiny_qk256_model(tmp_path_factory):
    """The same in qk256."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-qk256.gguf", "tiny", dtype="qk256")
