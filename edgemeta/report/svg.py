"""SVG as strings: elements that escape by construction, scales with round ticks, and the frame of a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from markupsafe import Markup, escape

LOG_DIGITS = ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))  # leading digits of ticks on a log scale, densest first
CHAR_PX = 6.4  # mean advance of the 12 px plot font, for room that must be known before a browser lays text out


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """`<name ...>children</name>`; strings are escaped, None attributes left out, `class_` -> class."""
    shown = (
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), round(value, 2) if type(value) is float else value)
        for key, value in attributes.items()
        if value is not None
    )
    head = Markup("<") + name + Markup("").join(shown)
    if name in ("line", "rect", "circle", "path", "polyline", "polygon"):
        return head + Markup("/>")
    return head + Markup(">") + join(children) + Markup("</") + name + Markup(">")


def join(parts: Iterable[Any]) -> Markup:
    return Markup("").join(map(escape, parts))


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "tick") -> Markup:
    return tag("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def canvas(width: float, height: float, label: str, *parts: Any) -> Markup:
    """An `<svg>` that never grows past its natural size; `label` is what a screen reader says."""
    box = f"0 0 {width:g} {height:g}"
    style = f"max-width:{width:g}px"
    return tag("svg", *parts, viewBox=box, style=style, role="img", aria_label=label)


class Scale(NamedTuple):
    """From values low..high to pixels start..stop."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """Round values inside the scale: about `count` of them, where possible at least three."""
        if not self.log:
            return _round_steps(self.low, self.high, count)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        series = [[d * 10.0**e for e in decades for d in digits] for digits in LOG_DIGITS]
        marks = [[m for m in every if self.low <= m * (1 + 1e-9) and m <= self.high * (1 + 1e-9)] for every in series]
        fitting = [every for every in marks if 3 <= len(every) <= count + 1]
        if fitting:
            return fitting[0]
        return marks[-1] if self.high > 10 * self.low else _round_steps(self.low, self.high, count)


def _round_steps(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = (0.5, 1, 2, 5, 10)
    at = next(i for i, d in enumerate(steps) if i and power * d >= rough * (1 - 1e-9))
    marks = _multiples(low, high, power * steps[at])
    return marks if len(marks) > 2 else _multiples(low, high, power * steps[at - 1])


def _multiples(low: float, high: float, step: float) -> list[float]:
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def span(values: Iterable[float], *, log: bool = False, margin: float = 0.06) -> tuple[float, float]:
    """Lowest and highest value with room around them; never empty, so that one point still has a scale."""
    values = list(values)
    low, high = min(values), max(values)
    if log:
        ratio = max(high / low, 1.5) ** margin
        low, high = (low / ratio, high * ratio) if high > low else (low / 1.5, high * 1.5)
        return low, high
    room = (high - low) * margin or max(abs(high) * margin, 1e-6)
    return low - room, high + room


def axes(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    y_label: str,
    x_ticks: Iterable[float] | None = None,
    y_format: Callable[[float], str] = "{:g}".format,
) -> Markup:
    """Horizontal grid, tick labels, axis names. The name of y stands flat above its axis: nobody tilts a screen."""
    parts = []
    for value in y.ticks():
        parts.append(tag("line", x1=x.start, x2=x.stop, y1=y(value), y2=y(value), class_="grid"))
        parts.append(text(x.start - 8, y(value) + 4, y_format(value), anchor="end"))
    for value in x.ticks(max(2, int((x.stop - x.start) / 80))) if x_ticks is None else x_ticks:
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 5, class_="axis"))
        parts.append(text(x(value), y.start + 19, f"{value:.4g}", anchor="middle"))
    parts.append(tag("line", x1=x.start, x2=x.stop, y1=y.start, y2=y.start, class_="axis"))
    parts.append(text(x.stop, y.start + 38, x_label, anchor="end", class_="name"))
    parts.append(text(2, y.stop - 14, y_label, class_="name"))
    return join(parts)


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """The `points` attribute of a polyline."""
    return " ".join(f"{a:.2f},{b:.2f}" for a, b in pairs)
