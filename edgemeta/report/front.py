"""The search as a plot: accuracy against predicted latency, with caps, Pareto front and winner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from edgemeta.report.pareto import pareto
from edgemeta.report.plots import BOTTOM, LEFT, RIGHT, TOP, Legend, milliseconds, percent, swatch
from edgemeta.report.story import Winner
from edgemeta.report.svg import CHAR_PX, Scale, axes, canvas, join, points, span, tag, text
from edgemeta.types import Arch, Cost, Trial

LANE = 34  # px under the axis for architectures that were never trained
MOST_UNTRAINED = 400  # marks drawn in that lane; more only cost bytes
BOLD = 1.25  # how much wider bold words are
CLIP = 1.5  # how far past the cap, as a ratio, an untrained architecture still gets its own place


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """Of each trained architecture the trial of the longest training."""
    last: dict[Arch, Trial] = {}
    for trial in trials:
        if _trained(trial) and (trial.arch not in last or trial.fidelity >= last[trial.arch].fidelity):
            last[trial.arch] = trial
    return list(last.values())


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials that no other one beats on both accuracy and latency, fastest first."""
    last = finished(trials)
    return [last[i] for i in pareto([(t.cost.latency_ms, t.score or 0.0) for t in last])]


def front(trials: Sequence[Trial], cap: Cost, winner: Winner | None, *, width: int) -> Markup:
    """Every trial of a search: trained ones by accuracy and predicted latency, the others in a lane below the axis."""
    trained, best = [t for t in trials if _trained(t)], finished(trials)
    rest = [t for t in trials if not _trained(t) and 0 <= t.cost.latency_ms < math.inf]
    height = 400
    x = _latency_scale(trained, rest, cap, width)
    y = Scale(*span([100 * (t.score or 0.0) for t in trained]), height - BOTTOM - LANE, TOP)
    levels = sorted({t.fidelity for t in trained})
    chosen = next((t for t in best if winner and t.arch == winner.arch), None)
    frame = axes(x, y, x_label="predicted latency, image to answer [ms]", y_label="accuracy on validation classes [%]")
    parts = [_lane(rest, cap, x, height), _cap_line(cap, x, y), frame, _steps(front_of(trials), x, y, cap)]
    for trial in sorted(trained, key=lambda t: t.fidelity):
        level = 2 - min(2, len(levels) - 1 - levels.index(trial.fidelity))
        look = f"f{level}" + " first" * (trial is chosen)  # where the keyboard enters
        parts.append(_dot(trial, x, y, look, 5.5 if trial in best else 3))
    if chosen:
        parts.append(_chosen(chosen, x, y))
    return canvas(width, height, f"Accuracy against latency of {len(trials)} trials", *parts)


def front_legend(trials: Sequence[Trial], cap: Cost) -> list[Legend]:
    levels = sorted({t.fidelity for t in trials if _trained(t)})
    legend = [
        Legend(swatch(tag("circle", cx=9, cy=7, r=5, class_=f"dot f{2 - back}")), f"trained for {level:,} episodes")
        for back, level in enumerate(reversed(levels[-3:]))
    ]
    legend.append(Legend(swatch(tag("line", x1=1, x2=17, y1=7, y2=7, class_="pareto")), "Pareto front"))
    if math.isfinite(cap.latency_ms):
        legend.append(Legend(swatch(tag("line", x1=9, x2=9, y1=0, y2=14, class_="cap")), "latency cap"))
    if not all(map(_trained, trials)):
        legend.append(
            Legend(
                swatch(tag("line", x1=9, x2=9, y1=1, y2=13, class_="over")),
                "over a cap: not trained; far ones at the edge",
            )
        )
    if any(t.status.startswith("failed") for t in trials):
        legend.append(Legend(swatch(_cross(9, 7)), "failed"))
    return legend


def _trained(trial: Trial) -> bool:
    scored = trial.score is not None and math.isfinite(trial.score)
    return trial.status == "ok" and scored and 0 <= trial.cost.latency_ms < math.inf


def _latency_scale(trained: Sequence[Trial], rest: Sequence[Trial], cap: Cost, width: int) -> Scale:
    known = [t.cost.latency_ms for t in trained] + [cap.latency_ms] * math.isfinite(cap.latency_ms)
    shown = known + [min(t.cost.latency_ms, CLIP * max(known)) for t in rest]
    log = min(shown) > 0 and max(shown) > 6 * min(shown)
    return Scale(*span(shown, log=log), LEFT, width - RIGHT, log)


def _trial_tip(trial: Trial) -> str:
    lines = [str(trial.arch)]
    if trial.score is not None:
        lines.append(f"accuracy {percent(trial.score, trial.score_ci)}")
    lines.append(f"predicted {trial.cost}".replace("ram ", "RAM "))
    if trial.fidelity:
        lines.append(f"trained for {trial.fidelity:,} episodes in {trial.seconds:.1f} s")
    return "\n".join([*lines, f"proposed by {trial.searcher}, seed {trial.seed}, {trial.status}"])


def _dot(trial: Trial, x: Scale, y: Scale, level: str, radius: float) -> Markup:
    place = {"cx": x(trial.cost.latency_ms), "cy": y(100 * (trial.score or 0.0))}
    return tag("circle", **place, r=radius, class_=f"dot {level}", data_tip=_trial_tip(trial))


def _chosen(trial: Trial, x: Scale, y: Scale) -> Markup:
    across, up = x(trial.cost.latency_ms), y(100 * (trial.score or 0.0))
    left = across > (x.start + x.stop) / 2
    ring = tag("circle", cx=across, cy=up, r=10, class_="ring")
    label = text(across + (8 if left else -8), up - 16, "chosen", anchor="end" if left else "start", class_="mark")
    return ring + label


def _cap_line(cap: Cost, x: Scale, y: Scale) -> Markup:
    if not math.isfinite(cap.latency_ms):
        return Markup()
    at = x(cap.latency_ms)
    words = f"cap {milliseconds(cap.latency_ms)}"
    fits = at + 6 + BOLD * CHAR_PX * len(words) < x.stop + RIGHT
    line = tag("line", x1=at, x2=at, y1=y.start + LANE, y2=y.stop - 4, class_="cap")
    return line + text(at + (6 if fits else -6), y.start - 8, words, anchor="start" if fits else "end", class_="mark")


def _steps(best: Sequence[Trial], x: Scale, y: Scale, cap: Cost) -> Markup:
    """The front as a staircase: at any latency, the best accuracy that no more time buys."""
    corners: list[tuple[float, float]] = []
    for trial in best:
        place = (x(trial.cost.latency_ms), y(100 * (trial.score or 0.0)))
        corners += [(place[0], corners[-1][1]), place] if corners else [place]
    if corners:
        end = x(cap.latency_ms) if math.isfinite(cap.latency_ms) else x.stop
        corners.append((max(end, corners[-1][0]), corners[-1][1]))
    return tag("polyline", points=points(corners), class_="pareto") if corners else Markup()


def _lane(rest: Sequence[Trial], cap: Cost, x: Scale, height: int) -> Markup:
    """Ticks under the axis: where latency alone does not say why, the tip names the caps that were passed."""
    if not rest:
        return Markup()
    top = height - LANE + 6
    parts = []
    for trial in rest[:: math.ceil(len(rest) / MOST_UNTRAINED)]:
        at = min(x(max(trial.cost.latency_ms, x.low)), x.stop)
        tip = _trial_tip(trial) + _passed(trial.cost, cap)
        if trial.status.startswith("failed"):
            parts.append(_cross(at, top + 9, tip))
        else:
            parts.append(tag("line", x1=at, x2=at, y1=top, y2=top + 18, class_="over", data_tip=tip))
    return join(parts)


def _passed(cost: Cost, cap: Cost) -> str:
    names = {"latency_ms": "latency", "ram_kib": "RAM", "flash_kib": "flash", "energy_mj": "energy"}
    broken = [name for key, name in names.items() if getattr(cost, key) > getattr(cap, key)]
    return f"\nover the cap of {' and '.join(broken)}" if broken else ""


def _cross(across: float, up: float, tip: str | None = None) -> Markup:
    arms = f"M{across - 4:.1f} {up - 4:.1f}l8 8m0 -8l-8 8"
    return tag("path", d=arms, class_="failed", data_tip=tip)
