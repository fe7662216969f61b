"""Values for charts: the lower end of an axis without outliers, and the Pareto front of quality against cost."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Point = TypeVar("Point")


def upper_front(
    points: Iterable[Point], cost_and_quality: Callable[[Point], tuple[float, float]]
) -> list[Point]:
    """The points that no other beats in both, by rising cost (the Pareto front); of equal ones the first."""

    def cheapest_then_best(point: Point) -> tuple[float, float]:
        cost, quality = cost_and_quality(point)
        return cost, -quality

    best: list[Point] = []
    for point in sorted(points, key=cheapest_then_best):
        if not best or cost_and_quality(point)[1] > cost_and_quality(best[-1])[1]:
            best.append(point)
    return best


def floor_without_outliers(values: Sequence[float]) -> float:
    """The least value to show on an axis: the lowest tenth is cut if it would take more room than all other values."""
    ordered = sorted(values)
    low, tenth, high = ordered[0], ordered[len(ordered) // 10], ordered[-1]
    return tenth - 0.1 * (high - tenth) if tenth - low > high - tenth else low
