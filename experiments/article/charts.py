"""Draws charts as inline SVG.

The colours come from the page's CSS, so that figures also have a dark mode. A panel is as wide as the text column on a
phone. At this width, its labels are 12 px high. Wider pages show several panels side by side.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 350, 262
TIMES = "\N{MULTIPLICATION SIGN}"
LEFT, RIGHT, TOP, BOTTOM = 42, 344, 44, 220  # the edges of the plot area


class Axis(NamedTuple):
    """An axis: its range, whether it is logarithmic, its tick labels, and its title."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str
    log: bool = False

    def place(self, value: float) -> float:
        """Return the position of a value along the axis, from 0 (low end) to 1 (high end)."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (value - low) / (high - low)


class Curve(NamedTuple):
    """Points `(x, y)` and their CSS classes; with `marks`, the points are drawn."""

    points: Sequence[tuple[float, float]]
    style: str
    marks: bool = False
    line: bool = True


def linear(low: float, high: float, label: str) -> Axis:
    """Create a linear axis from `low` to above `high`, with four to seven round ticks."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.8)
    top = low + step * math.ceil((high - low) / step - 1e-9)
    count = round((top - low) / step)
    return Axis(low, top, [(low + step * i, f"{round(low + step * i, 9):g}") for i in range(count + 1)], label)


def logarithmic(low: float, high: float, label: str) -> Axis:
    """Create a logarithmic axis with ticks at powers of ten or, for short ranges, at 1, 2 and 5 of each."""
    decades = math.log10(high / low)
    factors = (1, 2, 5) if decades < 2.5 else (1,)
    every = max(1, round(decades / 6))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return Axis(low, high, [(tick, power_of_ten(tick) if decades > 4 else f"{tick:g}") for tick in inside], label, True)


def power_of_ten(value: float) -> str:
    """Format 1e-3 as 10⁻³."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def panel(title: str, x: Axis, y: Axis, curves: Iterable[Curve], extra: str = "") -> str:
    """Draw curves in a frame with a title; `extra` is additional SVG on top."""
    drawn = "".join(curve_of(curve, x, y) for curve in curves)
    name = escape(f"{title}: {y.label}, {x.label}".strip(": ,"))
    return (f'<svg class="panel" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
            f"{frame(title, x, y)}{drawn}{extra}</svg>")


def frame(title: str, x: Axis, y: Axis) -> str:
    """Draw title, grid, ticks and axis titles."""
    parts = [text(0, 14, title, "title"), text(0, 32, y.label, "soft")]
    for value, label in y.ticks:
        height = BOTTOM - (BOTTOM - TOP) * y.place(value)
        parts += [f'<path class="grid" d="M{LEFT} {height:.1f}H{RIGHT}"/>',
                  text(LEFT - 6, height + 4, label, "end")]
    for value, label in x.ticks:
        across = LEFT + (RIGHT - LEFT) * x.place(value)
        parts += [f'<path class="tick" d="M{across:.1f} {BOTTOM}v4"/>', text(across, BOTTOM + 18, label, "middle")]
    parts += [f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>', text(RIGHT, BOTTOM + 36, x.label, "soft end")]
    return "".join(parts)


def text(x: float, y: float, content: str, style: str = "") -> str:
    """Draw a text; `style` may contain "middle" or "end" as its anchor."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(content)}</text>' if content else ""


def curve_of(curve: Curve, x: Axis, y: Axis) -> str:
    """Draw a curve's line and points, clipped to the axes."""
    places = [(LEFT + (RIGHT - LEFT) * min(max(x.place(a), 0), 1), BOTTOM - (BOTTOM - TOP) * min(max(y.place(b), 0), 1))
              for a, b in curve.points]
    line = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    dots = "".join(f'<circle class="{curve.style}" cx="{a:.1f}" cy="{b:.1f}" r="3.2"/>' for a, b in places)
    return (f'<path class="curve {curve.style}" d="{line}"/>' if curve.line else "") + (dots if curve.marks else "")


def swatch(style: str, name: str, mark: bool = False) -> str:
    """Draw a style with its name, for an HTML legend."""
    dot = f'<circle class="{style}" cx="15" cy="6" r="3.2"/>' if mark else ""
    line = f'<path class="curve {style}" d="M1 6H29"/>'
    return f'<span class="swatch"><svg viewBox="0 0 30 12" aria-hidden="true">{line}{dot}</svg>{escape(name)}</span>'
