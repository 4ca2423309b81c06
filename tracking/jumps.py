"""What `asv publish` found to have become worse, as its regressions.json has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Jump:
    """One rise of one benchmark; commits are asv's numbers of them."""

    name: str  # with its parameters
    params: Mapping[str, Any]  # of the graph: machine, environment, ...
    index: int | None  # of the combination of parameters
    before: int | None  # the last good commit; None where the next is the only candidate
    since: int
    old: float
    new: float


def on_machine(found: Mapping[str, Any], machine: str) -> Iterator[Jump]:
    """Those of one machine; asv names it where there are several."""
    for name, _graph, params, index, _last, _best, jumps in found.get("regressions", []):
        if params.get("machine", machine) == machine:
            for before, since, old, new in jumps or []:
                yield Jump(name, params, index, before, since, old, new)
