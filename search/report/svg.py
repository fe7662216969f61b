"""Charts as inline SVG, coloured by the classes of the page around them: they follow its light and dark mode."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from search.text import short_number

WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 26, 40  # margins
MOST_CURVES = 300  # more cannot be distinguished, and would make the page large


@dataclass(frozen=True)
class Line:
    """A curve with a tooltip; `kind` is its class: best, done, faint."""

    points: Sequence[tuple[float, float]]
    title: str
    kind: str


@dataclass(frozen=True)
class Dot:
    """A point with a tooltip and perhaps a label; `kind` is its class: best, done, faint, input."""

    x: float
    y: float
    title: str
    kind: str
    label: str = ""


@dataclass(frozen=True)
class Axis:
    """The direction of one coordinate: `low` to `high`, with its ticks."""

    label: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False

    def fraction(self, value: float) -> float:
        """From 0 at the low end to 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def make_axis(label: str, values: Sequence[float], *, log: bool = False) -> Axis:
    """An axis that holds all values with some air, and round ticks."""
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.3, high * 1.3
        ticks = [
            digit * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for digit in ((1, 2, 5) if high / low < 200 else (1,))
            if low <= digit * 10.0**power <= high
        ]
        return Axis(label, low, high, ticks, log=True)
    air = 0.06 * (high - low) or 0.5
    low, high = low - air, high + air
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return Axis(label, low, high, [n * step for n in range(first, math.floor(high / step) + 1)])


def percent_axis(label: str, lowest: float) -> Axis:
    """Shares of a training; early ones, which lie close together, are spread by a logarithm."""
    if lowest < 10:
        low = lowest / 1.2
        return Axis(label, low, 104, [tick for tick in (1, 2, 5, 10, 25, 50, 100) if tick >= low], log=True)
    return Axis(label, 0, 102, (0, 25, 50, 75, 100))


def draw_chart(
    x: Axis,
    y: Axis,
    lines: Sequence[Line] = (),
    dots: Sequence[Dot] = (),
    stairs: Sequence[tuple[float, float]] = (),
    level: tuple[float, str] | None = None,
    *,
    alt: str,
) -> Markup:
    """Lines and dots, the important ones on top; `stairs` a Pareto front; `level` a dashed line with its name."""

    def across(value: float) -> float:
        return LEFT + x.fraction(value) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - y.fraction(value) * (HEIGHT - TOP - BOTTOM)

    order = {"faint": 0, "done": 1, "best": 2}
    parts = [_grid(x, y, across, up)]
    if level is not None and y.low <= level[0] <= y.high:
        height = up(level[0])
        parts.append(
            Markup('<line class="level" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, height, height
            )
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                WIDTH - RIGHT - 2, height - 4, level[1]
            )
        )
    if stairs:
        parts.append(Markup('<path class="front" d="{}"/>').format(_stairs(stairs, across, up)))
    for line in sorted(lines, key=lambda line: order.get(line.kind, 1)):
        path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in line.points)
        parts.append(
            Markup('<g class="curve {}"><title>{}</title><polyline points="{}"/>{}</g>').format(
                line.kind,
                line.title,
                path,
                Markup("").join(
                    Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(
                        across(px), up(py), 3 if line.kind == "best" else 1.8
                    )
                    for px, py in line.points
                ),
            )
        )
    for dot in sorted(dots, key=lambda dot: order.get(dot.kind, 1)):
        cx, cy = across(dot.x), up(dot.y)
        parts.append(
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
                dot.kind, cx, cy, 5 if dot.kind == "best" else 3.6, dot.title
            )
        )
        if dot.label:
            right = cx > WIDTH * 0.62
            parts.append(
                Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                    cx + (-8 if right else 8), cy + 4, "end" if right else "start", dot.label
                )
            )
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, alt, Markup("").join(parts)
    )


def _grid(x: Axis, y: Axis, across: Callable[[float], float], up: Callable[[float], float]) -> Markup:
    bottom = HEIGHT - BOTTOM
    parts = []
    for tick in y.ticks:
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
            ).format(LEFT, WIDTH - RIGHT, up(tick), up(tick), LEFT - 6, up(tick) + 4, short_number(tick))
        )
    for tick in x.ticks:
        parts.append(
            Markup(
                '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
                '<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
            ).format(across(tick), across(tick), TOP, bottom, across(tick), bottom + 15, short_number(tick))
        )
    parts.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="end">{}</text>').format(
            WIDTH - RIGHT, HEIGHT - 6, x.label
        )
    )
    parts.append(Markup('<text class="axis" x="{}" y="{}">{}</text>').format(2, 13, y.label))
    return Markup("").join(parts)


def _stairs(
    points: Sequence[tuple[float, float]], across: Callable[[float], float], up: Callable[[float], float]
) -> str:
    """A front as steps: quality holds until a higher cost buys more."""
    (first_x, first_y), *others = points
    path = f"M{across(first_x):.1f},{up(first_y):.1f}"
    for px, py in others:
        path += f"H{across(px):.1f}V{up(py):.1f}"
    return str(escape(path + f"H{WIDTH - RIGHT}"))
