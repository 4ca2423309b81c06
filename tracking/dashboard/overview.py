"""The overview: where the project stands on each machine, as a page that is seen first.

`write` is called while asv publishes. It leaves overview.html (a fragment), its style and script, plotly.js out of
the plotly package, and for each machine the plots that the script draws.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from plotly.offline import get_plotlyjs

from tracking.commits import git
from tracking.dashboard import changes, goals, plots, records, sections, series
from tracking.report import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracking.dashboard.plots import Plot
    from tracking.dashboard.series import Commit, History

PAGE = Path(__file__).with_name("page")
MOST_COMMITS = 30  # that are listed


@dataclass(frozen=True)
class Places:
    """Where asv keeps results and pages."""

    html: Path
    results: Path


@dataclass(frozen=True)
class View:
    """One machine's sections, drawn."""

    id: int
    history: History
    model: str
    headline: Sequence[sections.Reading]
    failures: Mapping[str, series.Series]
    targets: Sequence[sections.TargetRow]
    trends: Sequence[Plot]
    roofline: Sequence[tuple[goals.Limit, Plot, Sequence[goals.Bar]]]
    goals: Sequence[goals.GoalRow]
    peers: records.Peers | None
    peers_plot: Plot | None
    memory: Sequence[Plot]
    speed: Sequence[Plot]
    regressions: Sequence[records.Regression]
    changed: Sequence[changes.Change]
    drifted: Sequence[changes.Change]
    provenance: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def plots(self) -> Iterator[Plot]:
        """All of them."""
        yield from (*self.trends, *(plot for _, plot, _ in self.roofline), *self.memory, *self.speed)
        if self.peers_plot:
            yield self.peers_plot

    @property
    def listed(self) -> list[Commit]:
        """The newest commits, newest first."""
        return list(self.history.commits[: -MOST_COMMITS - 1 : -1])


def write(  # noqa: PLR0917  # all that asv knows while it publishes
    html_dir: Path,
    results_dir: Path,
    benchmarks: Mapping[str, Any],
    revisions: Mapping[str, int],
    conf: Any,
    repo: Any,
) -> None:
    """Write the page's files into html_dir/overview."""
    folder = html_dir / "overview"
    folder.mkdir(exist_ok=True)
    places = Places(html_dir, results_dir)
    drawn = on_branches(conf, repo)
    shown = {commit: revision for commit, revision in revisions.items() if commit in drawn}
    histories = series.load(results_dir, benchmarks, shown)
    views = [view(i, history, places, benchmarks, drawn) for i, history in enumerate(histories)]
    elsewhere = () if views else series.load(results_dir, benchmarks, revisions)
    subject_of = subjects(repo)
    data = [json.dumps(browser_data(one, conf, subject_of), allow_nan=False) for one in views]
    for one, text in zip(views, data, strict=True):
        write_whole(folder / f"machine-{one.id}.json", text)
    write_whole(folder / "plotly.min.js", get_plotlyjs())
    for name in ("overview.css", "overview.js"):
        shutil.copyfile(PAGE / name, folder / name)
    stamp = hashlib.sha256("".join(data).encode()).hexdigest()[:16]
    write_whole(folder / "overview.html", page(views, elsewhere, conf, subject_of, stamp))


def on_branches(conf: Any, repo: Any) -> dict[str, int]:
    """The commits that asv draws, and their places in its order: those of the branches in asv.conf.json, and tags.

    A review measures others too, and `make peers` some of which asv has no results.
    """
    found = set(repo.get_tags().values()).union(*(repo.get_branch_commits(branch) for branch in conf.branches))
    places: dict[str, int] = repo.get_revisions(found)
    return places


def view(i: int, history: History, places: Places, benchmarks: Mapping[str, Any], revisions: Mapping[str, int]) -> View:
    """Everything that the page says of one machine."""
    headline = sections.headline(history)
    found = records.peers(places.results, history, revisions)
    return View(
        id=i,
        history=history,
        model=sections.best_model(history),
        headline=headline,
        failures=sections.failures(history),
        targets=sections.targets(history),
        trends=[
            plots.over_commits(f"trend-{one.title}", [one], history)
            for one in headline
            if one.title in ("Decode", "Prefill") and len(one.points) > 1
        ],
        roofline=[
            (limit, plots.roofline(f"roofline-{limit.benchmark}", limit, bars), [bar for bar in bars if bar.failed])
            for limit, bars in goals.roofline(history)
        ],
        goals=goals.goals(history),
        peers=found,
        peers_plot=plots.peers("peers", found) if found else None,
        memory=[plots.memory(f"memory-{row.model}", row) for row in sections.memory(history)],
        speed=[
            plots.curves(f"{title}-{model}", f"{model}, {title}", axis, lines)
            for title, axis, curves in (
                ("decode by depth", "depth, tokens", sections.decode_by_depth(history)),
                ("decode by threads", "threads", sections.decode_by_threads(history)),
                ("prefill by threads", "threads", sections.prefill_by_threads(history)),
            )
            for model, lines in curves.items()
        ],
        regressions=records.regressions(places.html, history, benchmarks, revisions),
        changed=changes.changed_most(history),
        drifted=changes.drifted(history),
        provenance=records.provenance(places.results, history),
    )


def browser_data(one: View, conf: Any, subject_of: Mapping[str, str]) -> dict[str, Any]:
    """What the script draws, and what it tells of a commit."""
    commits = {
        commit.short: {
            "subject": subject_of.get(commit.hash, ""),
            "date": date(commit),
            "link": records.commit_link(conf.show_commit_url, commit),
            "facts": one.provenance.get(commit.short, []),
        }
        for commit in (*one.history.commits, *([one.peers.commit] if one.peers else []))
    }
    return {"palette": plots.PALETTE, "plots": {plot.id: plot.as_dict() for plot in one.plots}, "commits": commits}


def page(
    views: Sequence[View], elsewhere: Sequence[History], conf: Any, subject_of: Mapping[str, str], stamp: str
) -> str:
    """The fragment; where it has no views, it says how many commits are measured that no branch of asv's has."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"date": date, "quantity": sections.quantity, "change": sections.percent}
    template = environment.get_template("overview.html.j2")
    html: str = template.render(
        views=views,
        elsewhere=len({commit.hash for history in elsewhere for commit in history.commits}),
        branches=" and ".join(str(branch or "the main branch") for branch in conf.branches),
        project=conf.project,
        commit_link=lambda commit: records.commit_link(conf.show_commit_url, commit),
        details=sections.details,
        sparkline=plots.sparkline,
        spark_size=plots.SPARK,
        last_two=changes.last_two,
        enough=changes.ENOUGH,
        subjects=subject_of,
        stamp=stamp,
    )
    return html


def date(commit: Commit) -> str:
    """The day of a commit."""
    return dt.datetime.fromtimestamp(commit.date / 1000, dt.timezone.utc).strftime("%Y-%m-%d") if commit.date else ""


def subjects(repo: Any) -> dict[str, str]:
    """The first line of each commit's message, by its hash; those that no branch or tag leads to are left out."""
    lines = git(Path(repo._path), "log", "--all", "--format=%H %s").split("\n")  # noqa: SLF001  # asv has no way
    return dict(line.split(" ", 1) for line in lines if " " in line)
