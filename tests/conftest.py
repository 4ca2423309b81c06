"""What all tests share: the levels of kernels that this machine can run, and the oracle's files."""

from pathlib import Path

import pytest

from bitnet_core.kernels import isa_levels

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
