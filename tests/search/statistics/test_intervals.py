"""Means, intervals and differences against slow loops and closed forms."""

import math
import random
from statistics import fmean, quantiles

import numpy as np
import pytest

from search.inference import ImageScore
from search.statistics import Effort, Entry, Estimate, Ranking, bootstrap_mean, rank_entries


def entry(name: str, psnr_db: list[float], kind: str | None = "dncnn") -> Entry:
    effort = Effort(kind, 0, 1, 1.0, 10, 0.1, 5.0) if kind else None
    return Entry(name, [ImageScore(value, ssim=value / 100, mae=1 / value) for value in psnr_db], effort)


def by_image(*entries: Entry) -> Ranking:
    return rank_entries(entries, [str(n) for n in range(len(entries[0].scores))])


def slow_interval(values: list[float], groups: list[int], draws: int = 4000) -> tuple[float, float]:
    """Percentiles of the mean over images when whole groups are drawn, image by image."""
    chance = random.Random(7)
    members = [[v for v, g in zip(values, groups, strict=True) if g == group] for group in set(groups)]
    means = []
    for _ in range(draws):
        drawn = [value for _ in members for value in chance.choice(members)]
        means.append(fmean(drawn))
    cuts = quantiles(means, n=40)
    return cuts[0], cuts[-1]


@pytest.mark.parametrize(
    "groups", [list(range(12)), [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5]], ids=["images", "groups"]
)
def test_interval_is_that_of_a_slow_loop(groups: list[int]) -> None:
    values = list(np.random.default_rng(1).normal(30, 2, 12))
    found = bootstrap_mean(values, groups)
    low, high = slow_interval(values, groups)
    assert found.mean == pytest.approx(fmean(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.12)  # chance of 4000 draws


def test_interval_of_many_images_is_that_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(2).normal(1, 3, 400)
    found = bootstrap_mean(values, np.arange(400))
    half = 1.96 * values.std() / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_images_that_share_their_luck_widen_the_interval() -> None:
    luck = np.random.default_rng(3).normal(0, 1, 8)
    values = np.repeat(luck, 25) + np.random.default_rng(4).normal(0, 0.1, 200)
    grouped, alone = (
        bootstrap_mean(values, np.repeat(np.arange(8), 25)),
        bootstrap_mean(values, np.arange(200)),
    )
    assert grouped.mean == pytest.approx(alone.mean)
    # By the theory of clusters nearly sqrt(25) times.
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(5, abs=1)


def test_interval_is_the_same_at_every_call() -> None:
    values = [1.0, 2.0, 4.0]
    assert bootstrap_mean(values, [0, 1, 2]) == bootstrap_mean(values, [0, 1, 2])


def test_one_group_has_no_interval() -> None:
    found = bootstrap_mean([1.0, 3.0], [0, 0])
    assert found.mean == 2
    assert math.isnan(found.low) and math.isnan(found.high)
    assert not found.one_sided


@pytest.mark.parametrize(
    ("low", "high", "one_sided"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)],
)
def test_zero_within_an_interval_or_at_its_end_is_not_significant(
    low: float, high: float, one_sided: bool
) -> None:
    assert Estimate(0.0, low, high).one_sided is one_sided


def test_entries_are_ordered_by_psnr_and_every_two_are_compared() -> None:
    found = by_image(
        entry("unchanged", [20.0, 22.0], None),
        entry("b", [30.0, 31.0]),
        entry("a", [30.0, 31.0]),
        entry("c", [10.0, 9.0]),
    )
    assert [row.entry.name for row in found.rows] == ["a", "b", "unchanged", "c"]
    assert [(d.better, d.worse, d.gain_db.mean) for d in found.differences] == [
        ("a", "b", 0.0),
        ("a", "unchanged", 9.5),
        ("a", "c", 21.0),
        ("b", "unchanged", 9.5),
        ("b", "c", 21.0),
        ("unchanged", "c", 11.5),
    ]
    assert [row.gain_db and row.gain_db.mean for row in found.rows] == [9.5, 9.5, None, -11.5]
    assert [row.behind_db and row.behind_db.mean for row in found.rows] == [None, 0.0, -9.5, -21.0]
    assert (found.images, found.groups) == (2, 2)


def test_paired_difference_is_sharper_than_the_scores_it_comes_from() -> None:
    base = list(np.random.default_rng(5).normal(30, 4, 20))
    ahead = [value + 0.5 + 0.01 * n for n, value in enumerate(base)]
    found = by_image(entry("unchanged", base, None), entry("net", ahead))
    (difference,) = found.differences
    best, unchanged = found.rows
    assert best.psnr_db.low < unchanged.psnr_db.high  # the intervals of the scores overlap
    assert difference.gain_db.one_sided
    assert difference.gain_db.high - difference.gain_db.low < 0.1


def test_equal_entries_do_not_differ() -> None:
    found = by_image(entry("unchanged", [20.0, 22.0, 25.0], None), entry("net", [20.0, 22.0, 25.0]))
    assert found.differences[0].gain_db == Estimate(0.0, 0.0, 0.0)
    assert not found.differences[0].gain_db.one_sided


def test_the_best_filter_is_what_others_are_measured_against() -> None:
    found = by_image(
        entry("unchanged", [20.0, 20.0], None),
        entry("weak filter", [24.0, 24.0], "classical"),
        entry("filter", [25.0, 27.0], "classical"),
        entry("net", [30.0, 30.0]),
    )
    assert found.filter == "filter"
    assert [row.filter_gain_db and row.filter_gain_db.mean for row in found.rows] == [4.0, None, -2.0, -6.0]
    without = by_image(entry("unchanged", [20.0, 20.0], None), entry("net", [30.0, 30.0]))
    assert without.filter is None
    assert [row.filter_gain_db for row in without.rows] == [None, None]


def test_other_metrics_are_means_and_rmse_the_root_of_the_mean_square() -> None:
    errors = [3.0, 4.0]  # root mean squared error of each image, in codes
    psnr = [20 * math.log10(255 / error) for error in errors]
    row = by_image(entry("unchanged", psnr, None), entry("net", [90.0, 90.0])).rows[1]
    assert row.rmse_255 == pytest.approx(math.sqrt((9 + 16) / 2))
    assert row.ssim == pytest.approx(fmean(psnr) / 100)
    assert row.mae_255 == pytest.approx(255 * fmean(1 / value for value in psnr))


@pytest.mark.parametrize(("count", "conclusive"), [(1, False), (2, False), (5, False), (6, True)])
def test_few_groups_prove_nothing(count: int, conclusive: bool) -> None:
    # Of two equals, one is ahead in all of n independent groups in 2 / 2^n of cases.
    assert (2 / 2**count <= 0.05) is conclusive
    scores = [20.0] * 12
    found = rank_entries(
        [entry("unchanged", scores, None), entry("net", scores)], [str(n % count) for n in range(12)]
    )
    assert (found.groups, found.conclusive, found.has_intervals) == (count, conclusive, count > 1)
