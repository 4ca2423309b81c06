"""A plugin for pytest, `-p scripts.ci.no_skips`: a skipped test fails the run.

For jobs that exist to run what is skipped elsewhere. Without it they would stay green when their tools go missing.
"""

from __future__ import annotations

from typing import Any

skipped: list[str] = []


def pytest_collectreport(report: Any) -> None:
    """A module that is skipped while it is imported."""
    if report.skipped:
        skipped.append(report.nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    """A test that is skipped; one that fails as it is expected to counts as run."""
    if report.skipped and not hasattr(report, "wasxfail"):
        skipped.append(report.nodeid)


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    """Fail a run that would have passed."""
    if skipped and exitstatus == 0:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which."""
    for nodeid in skipped:
        terminalreporter.line(f"skipped where nothing may be: {nodeid}", red=True)
