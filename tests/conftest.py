"""What all tests share: the levels of kernels that this machine can run, and the oracle's files."""

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


def pytest_report_header():
    return f"bitnet-core: levels of kernels under test: {', '.join(isa_levels())}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A synthetic model of the tiny preset in i2_s, seed 42, for reading only."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", "tiny")


@pytest.fixture(scope="session")
def tiny_qk256_model(tmp_path_factory):
    """The same in qk256."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-qk256.gguf", "tiny", dtype="qk256")
