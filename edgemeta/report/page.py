"""The report: one HTML file with everything inside, for which no network is needed, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgemeta.files import write_text
from edgemeta.report import agreement, course, drawing, drift, latencies, plots
from edgemeta.report import front as search
from edgemeta.report import policy as policies
from edgemeta.report.plots import milliseconds, percent
from edgemeta.report.story import Check, Score, Story
from edgemeta.report.svg import tag
from edgemeta.types import FLOAT_BYTES

WIDE, NARROW = 760, 330  # px: every drawing is made for a tablet, where a desk shows it larger, and for a phone
FULL_BIAS = 0.05  # fills the bar of the table by kind, unless a larger one is in it
PANELS = 880  # px at a desk: four panels of an architecture side by side
AGREEMENT = 520  # px at a desk: square, with its figures beside it
HEADLINE_SHOT = 5

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Meter(NamedTuple):
    """One number of the answer against its cap."""

    name: str
    value: str
    notes: tuple[str, ...]
    share: float | None  # of the cap; None where there is no cap or no value

    @property
    def holds(self) -> bool:
        return self.share is None or self.share <= 1


class Verdict(NamedTuple):
    """Whether the caps hold, with the mark and the mood it is shown in."""

    mark: str
    words: str
    mood: str


class Grid(NamedTuple):
    """The numbers behind a plot."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Figure(NamedTuple):
    """A plot at both widths, its legend and its numbers."""

    wide: Markup
    narrow: Markup
    legend: Sequence[plots.Legend] = ()
    grid: Grid | None = None


def write(path: Path | str, story: Story) -> Path:
    """Write the page of `story` to `path`; a kill leaves the old page or the new one."""
    return write_text(path, render(story))


def render(story: Story) -> str:
    """The page as one string of HTML. File names that are no Unicode become question marks, not a failure."""
    checks, moments = agreement.usable(story.checks), drift.usable(story.drift)
    meters, speed = _meters(story), drift.band(moments) if moments else None
    html = _TEMPLATES.get_template("page.html.j2").render(
        story=story,
        headline=_headline(story),
        meters=meters,
        verdict=_verdict(meters),
        latencies=latencies.rows(story),
        why=latencies.why(story, speed),
        best=_best(story),
        front=_front(story),
        front_size=len(search.front_of(story.trials)),
        counts=_counts(story),
        course=_course(story),
        policy=_policy(story),
        layers=_layers(story),
        layers_ms=sum(ms for _, ms in story.layers if math.isfinite(ms)),
        agreement=_agreement(checks),
        errors=_errors(checks),
        drawn_networks=len(agreement.thinned(checks)),
        tallies=agreement.tallies(checks),
        kinds=_kinds(checks),
        drift=_drift(moments),
        drift_band=speed,
        shots=_shots(story),
        architecture=_architecture(story),
        scores=_score_table(story.scores),
        doubts=story.doubts,
        own_networks=agreement.GROUPS["profile"],
        ms=milliseconds,
        percent=percent,
        signed=plots.signed,
        count=drawing.count,
        thousands="{:,}".format,
        budget=str(story.budget).replace("ram ", "RAM "),
    )
    return html.encode(errors="replace").decode()


def _figure(draw: Callable[[int], Markup], legend: Sequence[plots.Legend] = (), grid: Grid | None = None) -> Figure:
    return Figure(draw(WIDE), draw(NARROW), legend, grid)


# ---- the answer ---------------------------------------------------------------------------------------------------


def _best(story: Story) -> list[Score]:
    """The winner's scores on its first test set: 5-way where there is such a score, else the usual number of ways."""
    mine = [s for s in story.scores if story.winner and s.learner == story.winner.learner]
    if not mine:
        return []
    way = 5 if any(s.way == 5 for s in mine) else plots.usual_way(mine)
    mine = [s for s in mine if s.way == way]
    mine = [s for s in mine if s.test_set == mine[0].test_set]
    return sorted([s for s in mine if s.shot in (1, HEADLINE_SHOT)] or mine[:1], key=lambda s: s.shot)


def _headline(story: Story) -> str:
    if story.winner is None:
        return "No architecture was chosen"
    spent = story.winner.measured.median_ms if story.winner.measured else story.winner.predicted.ms
    best = _best(story)
    if not best:
        return f"{milliseconds(spent)} per image"
    shot = best[-1].shot
    examples = f"{shot} example{'s' * (shot > 1)} per class"
    return f"{percent(best[-1].accuracy)} from {examples}, in {milliseconds(spent)} per image"


def _meters(story: Story) -> list[Meter]:
    if story.winner is None:
        return []
    winner, cap = story.winner, story.budget
    guess, timing = winner.predicted, winner.measured
    notes = [f"image to answer, measured {timing.n:,} times" if timing else "not measured"]
    notes += [f"IQR {timing.iqr_ms:.2g} ms"] if timing else []
    side = latencies.outside(winner)
    beyond = f", which it was measured {side}" if side else ""
    notes.append(f"predicted {guess.ms:.3g} ms (90 %: {guess.low_ms:.3g} to {guess.high_ms:.3g}{beyond})")
    meters = [
        _meter("Latency", timing.median_ms if timing else guess.ms, cap.latency_ms, milliseconds, *notes),
        _meter("RAM", winner.ram_kib, cap.ram_kib, _kib, "peak of live activations"),
        _meter("Flash", winner.flash_kib, cap.flash_kib, _kib, "weights and graphs"),
    ]
    if winner.energy_mj is None:
        return [*meters, Meter("Energy", "not measured", (), None)]
    return [*meters, _meter("Energy", winner.energy_mj, cap.energy_mj, _mj, "of the processor, idling included")]


def _meter(name: str, value: float | None, cap: float, show: Callable[[float], str], *notes: str) -> Meter:
    if value is None:
        return Meter(name, "unknown", notes, None)
    against = f"cap {show(cap)}" if cap < math.inf else "no cap"
    share = value / cap if 0 < cap < math.inf else None
    return Meter(name, show(value), (against, *notes), share)


def _verdict(meters: Sequence[Meter]) -> Verdict:
    broken = [meter.name for meter in meters if not meter.holds]
    if broken:
        return Verdict("✕", f"Over the cap: {' and '.join(broken)}", "bad")
    if any(meter.share is not None for meter in meters):
        return Verdict("✓", "Every cap holds", "good")
    return Verdict("–", "No caps were set", "neutral")


def _mj(value: float) -> str:
    return f"{value:.3g} mJ"


def _kib(value: float) -> str:
    return f"{value / 1024:.3g} MiB" if value >= 1024 else f"{value:.3g} KiB"


# ---- figures ------------------------------------------------------------------------------------------------------


def _front(story: Story) -> Figure | None:
    if not search.finished(story.trials):
        return None
    ranked = sorted(story.trials, key=lambda t: (-(t.score or 0.0), t.cost.latency_ms))
    rated = any(t.cost.energy_mj < math.inf for t in ranked)
    rows = [
        (
            str(t.arch),
            t.status,
            "–" if t.score is None else percent(t.score, t.score_ci),
            f"{t.cost.latency_ms:.3g}",
            f"{t.cost.ram_kib:.4g}",
            f"{t.cost.flash_kib:.4g}",
            *([f"{t.cost.energy_mj:.3g}"] if rated else ()),
            f"{t.fidelity:,}",
            t.searcher,
        )
        for t in ranked[: search.MOST_UNTRAINED]
    ]
    energy = ("energy [mJ]",) if rated else ()
    head = ("architecture", "status", "accuracy", "predicted [ms]", "RAM [KiB]", "flash [KiB]", *energy, "episodes",
            "searcher")  # fmt: skip
    legend = search.front_legend(story.trials, story.budget)
    return _figure(
        lambda width: search.front(story.trials, story.budget, story.winner, width=width), legend, Grid(head, rows)
    )


def _counts(story: Story) -> dict[str, int]:
    return {
        "trained": len(search.finished(story.trials)),
        "infeasible": sum(t.status == "infeasible" for t in story.trials),
        "failed": sum(t.status.startswith("failed") for t in story.trials),
    }


def _course(story: Story) -> Figure | None:
    found = course.courses(story.trials, story.budget)
    if not found:
        return None
    rows = [(name, str(at), f"{100 * share:.1f} %") for name, of in found.items() for at, share in enumerate(of, 1)]
    grid = Grid(("searcher", "trainings", "of the largest hypervolume"), rows)
    return _figure(lambda width: course.lines(found, width=width), course.legend(found), grid)


def _policy(story: Story) -> Figure | None:
    found = story.policy
    if found is None:
        return None
    rows = [
        (name, *(percent(found.changes[of][at]) for of in ("budget", "device", "task")))
        for at, (name, _) in enumerate(found.decisions)
    ]
    grid = Grid(("decision", "changes with the budget", "with the device", "with the task"), rows)
    return _figure(lambda width: policies.bars(found, width=width), grid=grid)


def _layers(story: Story) -> list[dict[str, Any]]:
    """Bars as shares of the slowest operator, percentages as shares of the sum."""
    known = [(label, ms) for label, ms in story.layers if math.isfinite(ms)]
    longest, total = max((ms for _, ms in known), default=0.0), sum(ms for _, ms in known)
    digits = 2 - math.floor(math.log10(longest)) if longest > 0 else 2  # three of the longest, as many in every row
    return [
        {
            "label": label,
            "ms": f"{ms:.{max(digits, 0)}f} ms",
            "bar": 100 * max(ms, 0) / (longest or 1),
            "share": 100 * ms / (total or 1),
        }
        for label, ms in known
    ]


def _agreement(checks: Sequence[Check]) -> Figure | None:
    if not checks:
        return None
    draw, drawn = agreement.agreement, agreement.thinned(checks)
    return Figure(draw(drawn, width=AGREEMENT), draw(drawn, width=NARROW), agreement.legend(drawn))


def _errors(checks: Sequence[Check]) -> Figure | None:
    if not checks:
        return None
    rows = [
        (
            c.name,
            c.group,
            f"{c.predicted.ms:.4g}",
            f"{c.predicted.low_ms:.4g} to {c.predicted.high_ms:.4g}",
            f"{c.measured_ms:.4g}",
            plots.signed(100 * agreement.error(c), ".1f") + " %",
        )
        for c in sorted(checks, key=lambda c: -abs(agreement.error(c)))[: agreement.DRAWN]
    ]
    grid = Grid(("network", "from", "predicted [ms]", "interval [ms]", "measured [ms]", "off by"), rows)
    drawn = agreement.thinned(checks)
    return _figure(lambda width: agreement.errors(drawn, width=width), grid=grid)


def _kinds(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Rows of the table by kind of operator; the bar of a bias reaches from the middle to `FULL_BIAS` at most."""
    rows = agreement.by_kind(checks)
    most = max(FULL_BIAS, *(abs(row.bias) for row in rows)) if rows else FULL_BIAS
    return [
        {**row._asdict(), "from": min(50 + 50 * row.bias / most, 50), "swing": 50 * abs(row.bias) / most}
        for row in rows
    ]


def _drift(moments: drift.Points) -> Figure | None:
    if not moments:
        return None
    rows = [(f"{at:.1f}", f"{ms:.4g}") for at, ms in moments]
    grid = Grid(("seconds", "reference network [ms]"), rows)
    return _figure(lambda width: drift.line(moments, width=width), drift.legend(), grid)


def _shots(story: Story) -> Figure | None:
    if not story.scores or not plots.curves(story.scores):
        return None
    rows = [
        (s.learner, s.test_set, str(s.way), str(s.shot), percent(s.accuracy, s.ci), f"{s.episodes:,}")
        for s in story.scores
    ]
    grid = Grid(("learner", "test set", "classes", "shots", "accuracy", "episodes"), rows)
    legend = plots.shots_legend(story.scores)
    return _figure(lambda width: plots.shots(story.scores, width=width), legend, grid)


def _architecture(story: Story) -> dict[str, Any] | None:
    if story.winner is None or not story.winner.ops:
        return None
    ops = story.winner.ops
    kinds = list(dict.fromkeys(map(drawing.kind, ops)))
    legend = [plots.Legend(_kind_swatch(kind), kind) for kind in kinds]
    return {
        "figure": Figure(drawing.architecture(ops, width=PANELS), drawing.architecture(ops, width=NARROW), legend),
        "macs": sum(op.macs for op in ops),
        "parameters": sum(op.weight_bytes for op in ops) // FLOAT_BYTES,
    }


def _kind_swatch(kind: str) -> Markup:
    bar = tag("rect", x=2, y=1, width=6, height=12, rx=3, class_=f"kind {kind}")
    return tag("svg", bar, viewBox="0 0 10 14", width=10, height=14, aria_hidden="true")


# ---- the table of learners ----------------------------------------------------------------------------------------


def _score_table(scores: Sequence[Score]) -> dict[str, Any]:
    """Learners x test sets down, (ways, shots) across; 1 and 5 shots where there are such, else whatever there is."""
    shown = [s for s in scores if s.shot in (1, 5)] or list(scores)
    columns = sorted({(s.way, s.shot) for s in shown})
    rows: dict[tuple[str, str, bool], dict[tuple[int, int], Score]] = {}
    for score in shown:
        rows.setdefault((score.learner, score.test_set, score.transductive), {})[score.way, score.shot] = score
    return {"columns": columns, "rows": rows, "episodes": sorted({s.episodes for s in shown})}
