"""What `asv publish` found to have become worse, as its regressions.json has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from asv.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Jump:
    """One rise of one benchmark; commits are asv's numbers of them."""

    name: str  # with its parameters
    graph: frozenset[str]  # the folders of its graph, a parameter each: machine-m, python-3.11, ...
    params: Mapping[str, Any]  # of those the ones that tell graphs apart
    index: int | None  # of the combination of parameters
    before: int | None  # the last good commit; None where the next is the only candidate
    since: int
    old: float
    new: float

    def has(self, params: Mapping[str, Any]) -> bool:
        """Whether results with these parameters are in its graph."""
        return folders(params) <= self.graph

    def has_only(self, params: Mapping[str, Any]) -> bool:
        """Whether it has no others besides, as another environment of the machine may; a branch is of no results."""
        others = self.graph - folders(params)
        return self.has(params) and all(one.endswith("-null") or one.startswith("branch-") for one in others)


def folders(params: Mapping[str, Any]) -> frozenset[str]:
    """What asv makes of parameters in the path of a graph."""
    return frozenset(PurePath(Graph.get_file_path(params, "name")).parts[1:-1])


def jumps(found: Mapping[str, Any]) -> Iterator[Jump]:
    """All of them."""
    for name, path, params, index, _last, _best, each in found.get("regressions", []):
        graph = frozenset(PurePath(path).parts[1:-1])
        for before, since, old, new in each or []:
            yield Jump(name, graph, params, index, before, since, old, new)


def on_machine(found: Mapping[str, Any], machine: str) -> Iterator[Jump]:
    """Those of one machine."""
    return (jump for jump in jumps(found) if jump.has({"machine": machine}))
