"""The page's plots: sections as plotly figures, each with its numbers as a table for those who cannot see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from bitnet_core.targets import number
from tracking.dashboard.sections import PARTS, STACKED, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracking.dashboard.goals import Bar, Limit
    from tracking.dashboard.records import Peers
    from tracking.dashboard.sections import Curve, MemoryRow
    from tracking.dashboard.series import Commit, History

# Told apart by people who see few colours, on white and, in the second place, on black. The browser changes the first
# into the second.
PALETTE = (
    ("#0072b2", "#5ab4ec"),
    ("#d55e00", "#f59a4a"),
    ("#00865f", "#35c79a"),
    ("#a3478f", "#df8fcb"),
    ("#7a6a00", "#e3cf57"),
    ("#6b7686", "#98a4b5"),
)
BLUE, ORANGE, GREEN, PURPLE, OLIVE, GREY = (light for light, _ in PALETTE)
LEVELS = {"": BLUE, "scalar": GREY, "avx2": BLUE, "avxvnni": PURPLE, "avx512vnni": GREEN, "amx": ORANGE}
LEVELS |= {"neon": BLUE, "dotprod": PURPLE, "i8mm": GREEN}
DASHES = ("solid", "dash", "dot", "dashdot")
BAR_PIXELS = {1: 25, 2: 34}  # by the lines of its name
MOST_TICKS = 3  # as many hashes as a phone has room for
MOST_LETTERS = 16  # of a bar's name in one line
MOST_DOTS = 60  # of a sparkline
SPARK = (120.0, 30.0)


@dataclass(frozen=True)
class Plot:
    """A figure, what it shows in words, and its numbers."""

    id: str
    title: str
    label: str
    figure: go.Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[tuple[str, str]]]  # each cell a text and an address, or none
    height: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what plotly.js has anyway."""
        figure = json.loads(self.figure.to_json())
        figure["layout"].pop("template", None)
        return {**figure, "height": self.height}


def figure(x_title: str, y_title: str, **layout: Any) -> go.Figure:
    """An empty one; the browser adds font and colours of the page."""
    return go.Figure(
        layout={
            "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
            "xaxis": {"title": {"text": x_title, "standoff": 8}, "automargin": True, "zeroline": False},
            "yaxis": {"title": {"text": y_title, "standoff": 8}, "automargin": True, "zeroline": False},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "hovermode": "closest",
            "hoverlabel": {"align": "left", "namelength": -1},
            **layout,
        }
    )


def hover(reading: Reading, what: str) -> str:
    """Value, unit and commit; plotly reads some HTML, so what could be a tag is none."""
    return f"{_escaped(what)}<br><b>{reading.text} {reading.unit}</b><br>commit {reading.commit.short}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def cells(reading: Reading) -> tuple[tuple[str, str], tuple[str, str]]:
    """The number with its link, and the commit."""
    text = f"{reading.text} {reading.unit.partition(' ')[0]}"
    return (text, reading.series.link(reading.commit)), (reading.commit.short, "")


# ---- over commits ----


def over_commits(id_: str, readings: Sequence[Reading], history: History) -> Plot:
    """How figures of one unit went from commit to commit, evenly spaced."""
    place = {commit.hash: i for i, commit in enumerate(history.commits)}
    unit = readings[0].unit
    drawn = figure("commit, oldest first", unit)
    rows = []
    for i, reading in enumerate(readings):
        points = reading.points
        color = PALETTE[i % len(PALETTE)][0]
        drawn.add_scatter(
            x=[place[commit.hash] for commit, _ in points],
            y=[value for _, value in points],
            name=reading.title,
            mode="lines+markers" if len(points) <= 200 else "lines",
            line={"color": color, "width": 2, "dash": DASHES[i % len(DASHES)]},
            marker={"color": color, "size": 6},
            hovertext=[_at(reading, commit, value) for commit, value in points],
            hoverinfo="text",
            customdata=[reading.series.link(commit) for commit, _ in points],
        )
        rows += [
            [(reading.title, ""), (commit.short, ""), (f"{number(value)} {unit}", reading.series.link(commit))]
            for commit, value in reversed(points[-MOST_DOTS:])
        ]
    step = max(1, -(-len(history.commits) // MOST_TICKS))
    ticks = list(range(0, len(history.commits), step))
    drawn.update_xaxes(tickvals=ticks, ticktext=[history.commits[i].short for i in ticks], tickangle=0)
    drawn.update_yaxes(rangemode="tozero")
    names = " and ".join(reading.title for reading in readings)
    label = f"{names} over {len(history.commits)} commits, in {unit}"
    return Plot(id_, names, label, drawn, ("figure", "commit", unit), rows, 260)


def _at(reading: Reading, commit: Commit, value: float) -> str:
    return f"{reading.title}<br><b>{number(value)} {reading.unit}</b><br>commit {commit.short}"


@dataclass(frozen=True)
class Spark:
    """A line as small as a word: SVG coordinates, and what each point says."""

    line: str
    dots: Sequence[tuple[float, float, str]]
    label: str


def sparkline(reading: Reading) -> Spark | None:
    """The last commits of a figure, the newest at the right; nothing for a single one."""
    points = reading.points[-MOST_DOTS:]
    if len(points) < 2:
        return None
    width, height = SPARK
    values = [value for _, value in points]
    low, high = min(values), max(values)
    spread = max(high - low, 0.1 * abs(high), 1e-12)  # noise of a steady figure must not look like mountains
    middle = (low + high) / 2
    dots = [
        (
            round(4 + i * (width - 8) / (len(points) - 1), 1),
            round(height / 2 - (value - middle) / spread * (height - 10), 1),
            f"{number(value)} {reading.unit}, commit {commit.short}",
        )
        for i, (commit, value) in enumerate(points)
    ]
    line = " ".join(f"{x},{y}" for x, y, _ in dots)
    label = (
        f"{reading.title}, last {len(points)} commits: "
        f"from {number(values[0])} to {number(values[-1])} {reading.unit}, lowest {number(low)}, highest {number(high)}"
    )
    return Spark(line, dots, label)


# ---- roofline ----


def roofline(id_: str, limit: Limit, bars: Sequence[Bar]) -> Plot:
    """A bar a row, one colour a level, lines at the limit and the goal; what never gave a number is in the table."""
    known = [(bar, bar.reading) for bar in bars if bar.reading]
    levels = list(dict.fromkeys(bar.isa for bar, _ in known))
    drawn = figure("% of the limit", "", barmode="group", bargap=0.25, showlegend=levels != [""])
    drawn.update_layout(legend_traceorder="reversed")
    for level in reversed(levels):  # plotly begins at the bottom
        of_level = [(bar, reading) for bar, reading in known if bar.isa == level]
        drawn.add_bar(
            orientation="h",
            y=[_broken(bar.label) for bar, _ in of_level],
            x=[reading.value for _, reading in of_level],
            name=level,
            marker={"color": LEVELS.get(level, OLIVE)},
            text=[f"{'✗ ' if bar.failed else ''}{reading.value:.0f} %" for bar, reading in of_level],
            textposition="auto",
            hovertext=[hover(reading, bar.name) + _failed(bar, "<br>") for bar, reading in of_level],
            hoverinfo="text",
            customdata=[reading.series.link(reading.commit) for _, reading in of_level],
        )
    labels = list(dict.fromkeys(_broken(bar.label) for bar, _ in known))
    most = max([100.0, *(reading.value for _, reading in known)])
    drawn.update_xaxes(range=[0, most * 1.08], ticksuffix=" %")
    drawn.update_yaxes(categoryorder="array", categoryarray=labels[::-1])
    drawn.add_vline(x=100, line={"color": GREY, "width": 1})
    drawn.add_vline(x=100 * limit.goal, line={"color": ORANGE, "width": 2, "dash": "dot"})
    rows = [[(bar.label, ""), (bar.isa or "best", ""), *_cells_of(bar)] for bar in bars]
    label = f"{limit.title}: percent of the {limit.limit} for {len(known)} cases; the goal is {100 * limit.goal:g} %"
    lines = 2 if len(levels) == 1 and any("<br>" in one for one in labels) else 1
    height = 80 + BAR_PIXELS[lines] * len(known) + (30 if levels != [""] else 0)
    return Plot(id_, limit.title, label, drawn, ("case", "level", "of the limit", "commit"), rows, height)


def _failed(bar: Bar, before: str = "") -> str:
    return f"{before}failed at {bar.failed.short}" if bar.failed else ""


def _cells_of(bar: Bar) -> tuple[tuple[str, str], tuple[str, str]]:
    """The same as of any reading, and whether it failed since."""
    if bar.reading is None:
        return ("none", ""), (_failed(bar), "")
    value, (commit, _) = cells(bar.reading)
    return value, (commit + _failed(bar, ", "), "")


def _broken(label: str) -> str:
    """In two lines where one would take half of a phone."""
    return _escaped(label) if len(label) <= MOST_LETTERS else _escaped(label).replace(", ", ",<br>", 1)


# ---- peers ----


def peers(id_: str, found: Peers) -> Plot:
    """Engines beside each other, a group a test."""
    drawn = figure("test", "tok/s", barmode="group", bargap=0.3)
    rows = []
    for i, (engine, speeds) in enumerate(found.speeds().items()):
        samples = found.record["engines"][engine]["samples_ts"]
        drawn.add_bar(
            x=found.tests,
            y=speeds,
            name=engine,
            marker={"color": (BLUE, ORANGE, PURPLE, GREEN)[i % 4]},
            text=[number(speed) for speed in speeds],
            textposition="outside",
            textangle=0,
            cliponaxis=False,
            hovertext=[
                f"{engine}, {test}<br><b>{number(speed)} tok/s</b> "
                f"({number(min(samples[test]))} to {number(max(samples[test]))})<br>commit {found.commit.short}"
                for test, speed in zip(found.tests, speeds, strict=True)
            ],
            hoverinfo="text",
        )
        rows += [
            [(engine, ""), (test, ""), (f"{number(speed)} tok/s", "")]
            for test, speed in zip(found.tests, speeds, strict=True)
        ]
    drawn.update_yaxes(rangemode="tozero")
    label = f"tokens a second of {' and '.join(found.speeds())}"
    return Plot(id_, "Speed of the engines", label, drawn, ("engine", "test", "tok/s"), rows, 320)


# ---- memory ----


def memory(id_: str, row: MemoryRow) -> Plot:
    """The parts stacked, and below them what was held at once."""
    unit = next(iter(row.parts.values())).unit
    drawn = figure(unit, "", barmode="stack", bargap=0.35, uniformtext={"minsize": 11, "mode": "hide"})
    drawn.update_layout(legend_traceorder="normal")
    colors = dict(zip(PARTS, (BLUE, GREEN, GREY, GREY), strict=True))
    for part, reading in row.parts.items():
        drawn.add_bar(
            orientation="h",
            y=["by part" if part in STACKED else part],
            x=[reading.value],
            name=part,
            marker={"color": colors[part]},
            showlegend=part in STACKED,
            text=[reading.text],
            textposition="inside",
            textangle=0,
            insidetextanchor="middle",
            hovertext=[hover(reading, f"{row.model}, {part}")],
            hoverinfo="text",
            customdata=[reading.series.link(reading.commit)],
        )
    order = ["by part", *(part for part in row.parts if part not in STACKED)]
    drawn.update_yaxes(categoryorder="array", categoryarray=order[::-1])
    drawn.update_xaxes(rangemode="tozero")
    rows = [[(part, ""), *cells(reading)] for part, reading in row.parts.items()]
    said = ", ".join(f"{part} {reading.text} {unit}" for part, reading in row.parts.items())
    return Plot(id_, row.model, f"memory of {row.model}: {said}", drawn, ("part", unit, "commit"), rows, 220)


# ---- speed ----


def curves(id_: str, title: str, axis: str, lines: Sequence[Curve]) -> Plot:
    """Tokens a second along a number."""
    drawn = figure(axis, "tok/s")
    rows = []
    for i, line in enumerate(lines):
        color = PALETTE[i % len(PALETTE)][0]
        drawn.add_scatter(
            x=[x for x, _ in line.points],
            y=[reading.value for _, reading in line.points],
            name=line.label,
            mode="lines+markers",
            line={"color": color, "width": 2, "dash": DASHES[i % len(DASHES)]},
            marker={"color": color, "size": 8, "symbol": i % 6},
            hovertext=[hover(reading, f"{line.label}, {axis}: {x:,}") for x, reading in line.points],
            hoverinfo="text",
            customdata=[reading.series.link(reading.commit) for _, reading in line.points],
        )
        rows += [[(line.label, ""), (f"{x:,}", ""), *cells(reading)] for x, reading in line.points]
    values = sorted({x for line in lines for x, _ in line.points})
    drawn.update_xaxes(tickvals=values)
    drawn.update_yaxes(rangemode="tozero")
    label = f"{title}: tokens a second against {axis}, {len(lines)} lines"
    height = 280 + 22 * len(lines)
    return Plot(id_, title, label, drawn, ("what", axis, "tok/s", "commit"), rows, height)
