"""Records of :mod:`bitnet_core.bench` as text: JSON, CSV, or a table like llama-bench's."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bitnet_core.bench import FIELDS, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["OUTPUTS", "lines"]


def lines(records: Iterable[dict[str, Any]], output: str, *, columns: Iterable[str] = ()) -> Iterator[str]:
    r"""Write records, each as soon as it is there; nothing, if there is none.

    Parameters
    ----------
    records
        What :func:`run` yields. An exception of theirs, Ctrl-C included, comes through after what makes the lines so
        far whole.
    output
        ``json`` (an array), ``jsonl`` (a record a line), ``csv`` (with a header, without the samples), or ``md`` (a
        table).
    columns
        Fields that ``md`` shows beyond the usual: ``n_batch``, ``type_k``, ``isa``, ``head``, ``weights``,
        ``model_filename``.

    Yields
    ------
    str
        Lines, without the ``\n`` at their end.

    Raises
    ------
    ValueError
        There is no such output.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, not {output!r}")
    return OUTPUTS[output](records, frozenset(columns))


def _json_lines(records: Iterable[dict[str, Any]], _columns: frozenset[str]) -> Iterator[str]:
    begun = False  # an object is closed when it is known whether another follows
    try:
        for record in records:
            yield "  }," if begun else "["
            begun = True
            yield "  {\n" + ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    except (Exception, KeyboardInterrupt):
        if begun:
            yield "  }\n]"
        raise
    if begun:
        yield "  }\n]"


def _jsonl_lines(records: Iterable[dict[str, Any]], _columns: frozenset[str]) -> Iterator[str]:
    for record in records:
        yield json.dumps(record)


def _csv_lines(records: Iterable[dict[str, Any]], _columns: frozenset[str]) -> Iterator[str]:
    names = [name for name, kind in FIELDS.items() if kind is not list]
    for i, record in enumerate(records):
        if i == 0:
            yield ",".join(names)
        line = io.StringIO()
        values = (record[name] for name in names)
        cells = [int(value) if isinstance(value, bool) else value for value in values]
        csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
        yield line.getvalue()


class _Column(NamedTuple):
    title: str
    width: int  # negative: aligned to the left
    cell: Callable[[dict[str, Any]], str]
    field: str | None = None  # shown on request, by this name


def _percent(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda record: "" if record[name] is None else f"{100 * record[name]:.1f}"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> str:
    """In the first unit that it reaches, else the last."""
    size, unit = next((pair for pair in units if value >= pair[0]), units[-1])
    return f"{value / size:.2f} {unit}"


_COLUMNS = (
    _Column("model", -24, lambda r: r["model_type"]),
    _Column("file", -24, lambda r: r["model_filename"].replace("|", "\\|"), "model_filename"),
    _Column("size", 10, lambda r: _scaled(r["model_size"], [(2**30, "GiB"), (2**20, "MiB")])),
    _Column("params", 10, lambda r: _scaled(r["model_n_params"], [(1e9, "B"), (1e6, "M")])),
    _Column("threads", 7, lambda r: str(r["n_threads"])),
    _Column("n_batch", 7, lambda r: str(r["n_batch"]), "n_batch"),
    _Column("type_k", 6, lambda r: r["type_k"], "type_k"),
    _Column("isa", 10, lambda r: r["isa"], "isa"),
    _Column("head", 8, lambda r: r["head"], "head"),
    _Column("weights", 7, lambda r: r["weights"], "weights"),
    _Column("test", 15, lambda r: Case(Path(), r["n_prompt"], r["n_gen"], r["n_depth"]).name),
    _Column("t/s", 18, lambda r: f"{r['avg_ts']:.2f} ± {r['stddev_ts']:.2f}"),
    _Column("GB/s", 7, lambda r: f"{r['gb_s']:.2f}"),
    _Column("% of read", 9, _percent("bandwidth_fraction")),
    _Column("% of int8 peak", 14, _percent("int8_peak_fraction")),
)


def _md_lines(records: Iterable[dict[str, Any]], columns: frozenset[str]) -> Iterator[str]:
    shown = [column for column in _COLUMNS if column.field is None or column.field in columns]

    def row(cells: Iterable[str]) -> str:
        padded = (
            cell.ljust(-column.width) if column.width < 0 else cell.rjust(column.width)
            for column, cell in zip(shown, cells, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    for i, record in enumerate(records):
        if i == 0:
            yield row(column.title for column in shown)
            yield row("-" * -c.width if c.width < 0 else "-" * (c.width - 1) + ":" for c in shown)
        yield row(column.cell(record) for column in shown)


OUTPUTS: dict[str, Callable[[Iterable[dict[str, Any]], frozenset[str]], Iterator[str]]] = {
    "json": _json_lines,
    "jsonl": _jsonl_lines,
    "md": _md_lines,
    "csv": _csv_lines,
}
"""The ways to write records, by name."""
