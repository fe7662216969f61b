"""How a ranking is shown: nothing cut off, and the same numbers everywhere."""

import csv
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from data.files.images import read_image
from search.analysis.ranking_table import ranking_notes, show_ranking, write_ranking
from search.inference import ImageScore
from search.statistics import Effort, Entry, Ranking, rank_entries


def ranking(groups: int = 8, filters: bool = False) -> Ranking:
    def scores(*ahead: float) -> list[ImageScore]:
        return [ImageScore(20 + n + ahead[n % len(ahead)], ssim=0.9, mae=0.02) for n in range(8)]

    effort = Effort("dncnn", 3, 12, 83.4, 1234567, 12.345, 1234.5)
    entries = [
        Entry("unchanged", scores(0.0)),
        Entry("a_study_with_a_very_long_name_indeed", scores(10.0, 10.5), effort),
        Entry("close", scores(10.4, 10.0), effort),
    ]
    if filters:
        entries.append(Entry("filters", scores(2.0, 3.0), Effort("classical", 1, 4, 2.0, 0, 0.0, 20.0)))
    return rank_entries(entries, [str(n % groups) for n in range(8)])


def shown(found: Ranking, width: int = 60) -> str:
    console = Console(file=StringIO(), width=width)
    show_ranking(found, console, ["a remark about [this]"])
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_terminal_shows_all_numbers_however_narrow_it_is() -> None:
    found = ranking(filters=True)
    text = shown(found, width=60)
    first = found.rows[0]
    assert first.gain_db and first.filter_gain_db
    score, gain, ahead = first.psnr_db, first.gain_db, first.filter_gain_db
    line = next(line for line in text.splitlines() if line.startswith("a_study_with"))
    assert line.split() == [
        "a_study_with_a_very_long_name_indeed",
        *("33.75", f"[{score.low:.2f},", f"{score.high:.2f}]"),
        *("+10.25", f"[+{gain.low:.2f},", f"+{gain.high:.2f}]"),
        *("+7.75", f"[+{ahead.low:.2f},", f"+{ahead.high:.2f}]"),
        "0.9000",
    ]
    assert "…" not in text
    assert "over filters" in text
    assert "1,234,567  12.35         1,234      1:23      12" in text
    assert text.endswith("a remark about [this]\n")


def test_best_comes_first_and_unchanged_has_no_cost() -> None:
    lines = shown(ranking()).splitlines()
    names = [line.split()[0] for line in lines[1:4]]
    assert names == ["a_study_with_a_very_long_name_indeed", "close", "unchanged"]
    assert lines[8].split()[-5:] == ["-"] * 5
    assert "over filters" not in lines[0]


def test_differences_that_are_not_significant_are_named() -> None:
    lines = ranking_notes(ranking())
    assert lines[0] == "[ ]: 95 % interval, paired bootstrap over 8 images"
    assert lines[1].startswith(
        "not significant, 0 is in the interval: a_study_with_a_very_long_name_indeed over close +0.05 [-0."
    )
    assert lines[2:] == ["all other differences are significant"]


def test_few_groups_are_told() -> None:
    lines = ranking_notes(ranking(groups=2))
    assert lines[0] == "[ ]: 95 % interval, paired bootstrap over 2 groups (8 images)"
    assert lines[1].startswith("2 groups (8 images) are too few for true 95 %: ")
    assert not any("are significant" in line for line in lines)


def test_one_group_has_no_intervals_anywhere(tmp_path: Path) -> None:
    found = ranking(groups=1)
    assert ranking_notes(found) == [
        "all 8 images are of one group: no intervals, nothing can be called significant"
    ]
    assert "[" not in shown(found).split("all 8")[0]
    write_ranking(tmp_path, found, "title", [])
    assert read_image(tmp_path / "ranking.png").std() > 5


def test_csv_has_the_numbers_of_the_ranking(tmp_path: Path) -> None:
    found = ranking(filters=True)
    write_ranking(tmp_path, found, "title", [])
    with (tmp_path / "ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["place"] for row in rows] == ["1", "2", "3", "4"]
    for row, line in zip(found.rows, rows, strict=True):
        assert line["study"] == row.entry.name
        assert float(line["psnr_db"]) == pytest.approx(row.psnr_db.mean, abs=1e-4)
        assert float(line["psnr_db_low"]) == pytest.approx(row.psnr_db.low, abs=1e-4)
        assert float(line["mae_times_765"]) == pytest.approx(765 * 0.02)
    assert float(rows[0]["gain_db"]) == pytest.approx(10.25)
    assert float(rows[0]["filter_gain_db"]) == pytest.approx(7.75)
    assert (rows[0]["parameters"], rows[0]["trial"], rows[0]["model"]) == ("1234567", "3", "dncnn")
    assert (rows[3]["study"], rows[3]["gain_db"], rows[3]["parameters"]) == ("unchanged", "", "")


def test_markdown_has_every_difference_with_its_verdict(tmp_path: Path) -> None:
    write_ranking(tmp_path, ranking(), "8 validation images of somewhere", ["a remark"])
    text = (tmp_path / "ranking.md").read_text("utf-8")
    assert text.startswith("# 8 validation images of somewhere\n\n![")
    assert "\n- a remark\n" in text
    assert "| close | unchanged | +10.20 [+10.05, +10.35] | yes |" in text
    assert text.count("| no |") == 1


def test_markdown_calls_nothing_significant_over_few_groups(tmp_path: Path) -> None:
    write_ranking(tmp_path, ranking(groups=2), "title", [])
    assert "| too few groups |" in (tmp_path / "ranking.md").read_text("utf-8")


def test_chart_grows_with_the_number_of_entries(tmp_path: Path) -> None:
    heights = []
    for filters in (False, True):
        write_ranking(tmp_path, ranking(filters=filters), "title", [])
        picture = read_image(tmp_path / "ranking.png")
        assert picture.std() > 5
        heights.append(picture.shape[0])
    assert heights[0] < heights[1]
