"""What a report says and shows, against the images and the database; the page itself in a browser."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from data.files.images import read_image
from search.__main__ import main
from search.analysis import Validation, conclusions, floor_without_outliers, upper_front
from search.analysis.validation import Gain, _busiest
from search.dashboard.notes import study_note, trial_note
from search.database import Record, default_storage_url, load_study
from search.inference import Precision, restore_image
from search.report import facts as report
from search.report import render_report, report_markdown
from search.report.facts import ReportFacts
from search.report.html import data_uri
from search.report.svg import make_axis
from search.statistics import Estimate
from search.text import short_number
from search.worker import load_best
from tests.search.chromium import Browser
from tests.search.conftest import NASTY


def facts(out: Path, name: str = "tiny", *, restore_images: bool = True) -> ReportFacts:
    url = default_storage_url(out)
    return report.gather_facts(
        load_study(name, url), out, url, lambda line: None, restore_images=restore_images
    )


@pytest.fixture(scope="module")
def gathered(explored: Path) -> ReportFacts:
    return facts(explored)


@pytest.fixture(scope="module")
def written(gathered: ReportFacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(gathered), "utf-8")
    return path


def psnr_db(ours: NDArray[np.uint8], clean: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((ours.astype(float) - clean) ** 2)))


def test_gains_are_those_of_the_images_on_disk(explored: Path, gathered: ReportFacts) -> None:
    winner = load_best(load_study("tiny", default_storage_url(explored)), explored)
    before, after = [], []
    for path in sorted((explored.parent / "data" / "val" / "scan").iterdir()):
        scan = read_image(path)[..., :1]
        clean = read_image(path.parents[1] / "clean" / path.name)[..., :1]
        image = torch.from_numpy(scan.astype(np.float32) / 255).permute(2, 0, 1)
        restored = restore_image(winner.model, image, Precision("fp32", torch.device("cpu")))
        codes = (restored.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        before.append(psnr_db(scan, clean))
        after.append(psnr_db(codes, clean))
    assert gathered.validation is not None
    assert gathered.validation.images == len(after) == 7
    assert gathered.validation.psnr_db.mean == pytest.approx(np.mean(after), abs=1e-6)
    gain = gathered.validation.gains[0].gain_db
    assert gain.mean == pytest.approx(np.mean(after) - np.mean(before), abs=1e-6)
    # The bootstrap interval of a mean is near that of its standard error.
    error = np.std(np.subtract(after, before)) / np.sqrt(7)
    assert gain.high - gain.low == pytest.approx(2 * 1.96 * error, rel=0.25)
    changes = sorted(np.subtract(after, before))
    shown = [sample.after_db - sample.before_db for sample in gathered.validation.samples]
    assert shown == pytest.approx([changes[-1], changes[3], changes[0]])


def test_best_filter_of_the_database_is_a_rival(gathered: ReportFacts, explored: Path) -> None:
    assert gathered.validation is not None
    assert "the best filter (median)" in [gain.over for gain in gathered.validation.gains]
    of_filters = facts(explored, "filters")
    assert of_filters.validation is not None
    assert "filter" not in str([gain.over for gain in of_filters.validation.gains])
    assert of_filters.headline.startswith("The best filter is median: it restores at ")


def test_crop_is_where_most_of_the_error_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.analysis.validation.CROP_HEIGHT", 5)
    monkeypatch.setattr("search.analysis.validation.CROP_WIDTH", 8)
    error = np.random.default_rng(3).random((17, 23), np.float32) ** 8
    held = {
        (top, left): error[top : top + 5, left : left + 8].sum()
        for top in range(17 - 5 + 1)
        for left in range(23 - 8 + 1)
    }
    top, left = max(held, key=lambda place: held[place])
    assert _busiest(error) == (slice(top, top + 5), slice(left, left + 8))
    assert _busiest(error[:3, :4]) == (slice(0, 3), slice(0, 4))


def test_front_is_what_no_other_beats() -> None:
    rng = np.random.default_rng(0)
    points = [(float(cost), float(score)) for cost, score in rng.integers(0, 12, (60, 2))]
    unbeaten = {
        (cost, score)
        for cost, score in points
        if not any((c <= cost and s >= score) and (c, s) != (cost, score) for c, s in points)
    }
    assert set(upper_front(points, lambda point: point)) == unbeaten


@pytest.mark.parametrize("values", [[1.0, 1.0], [15.2, 33.7], [0.001, 0.0023], [-3.0, 1e4], [3.0]])
def test_ticks_are_round_and_within(values: list[float]) -> None:
    for log in (False, True):
        if log and min(values) <= 0:
            continue
        axis = make_axis("x", values, log=log)
        assert axis.low < min(values) and max(values) < axis.high
        assert log or 2 <= len(axis.ticks) <= 7
        assert all(0 <= axis.fraction(tick) <= 1 for tick in axis.ticks)
        assert all(len(short_number(tick)) <= 7 for tick in axis.ticks)


def test_axis_leaves_out_few_far_values_only() -> None:
    assert floor_without_outliers([20.0, 21.0, 22.0]) == 20
    many = [30.0 + n / 10 for n in range(50)]
    assert floor_without_outliers(many) == 30
    assert 29 < floor_without_outliers([5.0, 7.0, *many]) < 31


def ended(number: int, state: str, why: str, **more: object) -> Record:
    return Record(number=number, trial_id=number, state=state, ended=why, **more)  # type: ignore[arg-type]


def test_failures_are_told_apart_by_their_reason() -> None:
    trials = [
        ended(0, "complete", "finished", notes=("out of memory at step 3: batches in 2 parts",)),
        ended(1, "pruned", "beaten at 6 %: 20.10 dB"),
        ended(2, "pruned", "out of time at step 5 of 9 (0:30)"),
        ended(3, "pruned", "out of time at step 7 of 9 (0:30)"),
        ended(4, "failed", "ValueError: no\nsecond line"),
        ended(5, "pruned", "out of memory: 3 GiB"),
    ]
    found = {failure.kind: failure.trials for failure in report._failures(trials)}
    assert found == {
        "out of time": (2, 3),
        "ValueError": (4,),
        "out of memory": (5,),
        "rescued, went on": (0,),
    }


def sided(number: int, sparsity: dict[str, object], precision: str, reported: dict[int, float]) -> Record:
    config = {"sparsity": sparsity, "precision": precision}
    return ended(number, "pruned", "", config=config, reported=reported, steps=9)


def test_sides_are_compared_at_a_rung_that_all_of_them_reached() -> None:
    dense = {"kind": "dense"}
    trials = [
        sided(0, dense, "fp32", {6: 20.0, 25: 22.0}),
        sided(1, dense, "fp32", {6: 22.0}),
        sided(2, dense, "auto", {6: 19.0}),
    ]
    (contrast,) = report._contrasts(trials)
    assert (contrast.what, contrast.percent) == ("precision", 6)
    assert [(side.value, side.mean, len(side.scores)) for side in contrast.groups] == [
        ("auto", 19.0, 1),
        ("fp32", 21.0, 2),
    ]
    assert contrast.groups[0].spread is None
    assert contrast.groups[1].spread == pytest.approx(2**0.5)


def test_sparsity_is_judged_only_after_its_sparse_phase_began() -> None:
    sparse = {"kind": "dsd", "dense_share": 0.6}
    early = [sided(0, {"kind": "dense"}, "fp32", {25: 1.0}), sided(1, sparse, "fp32", {25: 2.0})]
    assert list(report._contrasts(early)) == []
    late = [sided(0, {"kind": "dense"}, "fp32", {100: 1.0}), sided(1, sparse, "fp32", {100: 2.0})]
    (contrast,) = report._contrasts(late)
    assert (contrast.what, contrast.percent) == ("dense-sparse-dense", 100)


def judged(images: int, gain: Estimate) -> Validation:
    nothing = Estimate(30.0, 29.0, 31.0)
    gains = (Gain("the input", 25.0, nothing), Gain("the best filter", 29.0, gain))
    return Validation(images, images, images, nothing, 0.9, 0.01, 0.8, 0.02, gains, ())


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Estimate(1.0, 0.5, 1.5), "+1.00 dB (95 %: +0.50 to +1.50)."),
        (Estimate(1.0, -0.5, 2.5), "the interval holds 0"),
        (Estimate(-1.0, -1.5, -0.5), "the best filter restores better"),
        (Estimate(1.0, float("nan"), float("nan")), "+1.00 dB."),
    ],
)
def test_verdict_says_how_sure_it_is(gain: Estimate, words: str) -> None:
    best = ended(3, "complete", "finished", psnr_db=30.0, config={"model": {"kind": "unet"}}, parameters=1234)
    said = conclusions.conclusion_sentences([best], best, judged(7, gain), "")
    assert any(words in sentence for sentence in said), said
    assert any(
        "too few" in sentence
        for sentence in conclusions.conclusion_sentences([best], best, judged(4, gain), "")
    )
    assert conclusions.headline(best, judged(7, gain)) == (
        "The best model is a U-Net with 1,234 parameters: it restores at 30.00 dB, 30.00 dB better than the "
        "images came."
    )


def test_verdict_meets_known_recipes_where_they_were_left() -> None:
    best = ended(2, "complete", "finished", psnr_db=30.0, reported={6: 20.0, 25: 24.0, 100: 29.0})
    known = [
        ended(0, "pruned", "", label="one", reported={6: 25.0}),
        ended(1, "pruned", "", label="two", reported={6: 19.0, 25: 23.0}),
    ]
    (said,) = conclusions._known_recipe_sentences([*known, best], best, None)
    assert "at 25 % of the steps the best of them ('two') had 23.00 dB, the winner 24.00 dB" in said


def test_study_without_a_finished_trial_has_a_report_too(explored: Path, tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'search.db'}"
    study = optuna.create_study(study_name="empty", storage=url, direction="maximize")
    for trials in (0, 1):
        text = render_report(report.gather_facts(study, tmp_path, url, lambda line: None))
        assert "No trial has finished yet." in text
        assert f"{trials} trials" in text or trials == 0
        study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)


def test_report_without_weights_says_why_nothing_was_restored(explored: Path, tmp_path: Path) -> None:
    shutil.copytree(explored, tmp_path / "runs")
    for path in (tmp_path / "runs" / "tiny").rglob("*.safetensors"):
        path.unlink()
    found = facts(tmp_path / "runs")
    assert found.validation is None
    assert any("are gone" in sentence for sentence in found.sentences)
    assert "Before and after" not in render_report(found)


def test_files_of_all_formats_are_written(
    explored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", "tiny", "--out", str(explored), "--to", str(tmp_path / "to"), "--no-pictures"]
    assert main([*arguments, "--format", "html,md,csv"]) == 0
    assert {path.name for path in (tmp_path / "to").iterdir()} == {"report.html", "report.md", "trials.csv"}
    assert len(pd.read_csv(tmp_path / "to" / "trials.csv")) == 3
    assert "dB" in (tmp_path / "to" / "report.md").read_text("utf-8").splitlines()[0]
    capsys.readouterr()
    assert main([*arguments, "--format", "pdf"]) == 2
    assert "'pdf' is not known (known: html, md, csv)" in capsys.readouterr().err


def test_no_password_is_passed_on(gathered: ReportFacts) -> None:
    url = "postgresql://me:secret@host/db?password=secret"
    (run, export) = report._commands(_NamedStudy(), gathered.best, Path("runs"), url)  # type: ignore[arg-type]
    assert "secret" not in run + export
    assert "//me:***@host/db?password=***" in run


class _NamedStudy:
    def __init__(self) -> None:
        self.study_name, self.user_attrs = "tiny", dict[str, str]()


def test_picture_in_the_page_has_the_pixels_of_the_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3), np.uint8)
    kind, data = data_uri(pixels).split(",")
    assert kind == "data:image/png;base64"
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) == pixels).all()
    large = np.random.default_rng(0).integers(0, 256, (400, 560, 1), np.uint8)
    uri = data_uri(large)
    assert uri.startswith("data:image/jpeg")
    assert len(uri) < 400_000


def test_page_needs_nothing_from_elsewhere_and_runs_no_name(written: Path) -> None:
    text = written.read_text("utf-8")
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(?!data:)[a-z]+:""", text)
    assert "<b>hand</b>" not in text
    assert text.count("<script") == 1


HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) <img src=x onerror=alert(1)> ![y](http://a.b/c) `|\x1b[2J"


def test_names_of_a_stranger_are_shown_and_never_run(gathered: ReportFacts) -> None:
    assert gathered.best is not None
    trial = replace(gathered.best, label=HOSTILE, ended=HOSTILE, notes=(HOSTILE,))
    facts = replace(gathered, study=HOSTILE, best=trial, trials=(trial,), known=(trial,), commands=(HOSTILE,))
    page, text, note = render_report(facts), report_markdown(facts), trial_note(trial, [])
    assert page.count("<script") == 1
    assert "<img src=x" not in page and 'href="javascript' not in page
    for written in (text.partition("## To repeat it")[0], note, study_note([trial], trial)):
        for live in ("<script", "<img", "[x](", "![y](", "\x1b"):
            assert not re.search(rf"(?<!\\){re.escape(live)}", written), live


def test_page_in_a_browser(written: Path, chromium: Browser) -> None:
    chromium.open(written.as_uri())
    assert chromium.complaints == []
    assert chromium.script("document.body.innerText").count(NASTY) >= 2
    assert chromium.script("[...document.images].map(i => i.naturalWidth)") == [23] * 9
    assert chromium.script("document.querySelectorAll('svg.chart polyline').length") >= 3


def cut(chromium: Browser) -> float:
    """How much of the first picture shows the degraded image, in percent, as drawn."""
    clip = chromium.script("getComputedStyle(document.querySelector('img.degraded')).clipPath")
    found = re.fullmatch(
        r"inset\(0(?:px)? calc\(100% - ([\d.]+)%\) 0(?:px)? 0(?:px)?\)|inset\(0px ([\d.]+)% 0px 0px\)", clip
    )
    assert found is not None, clip
    return float(found[1]) if found[1] else 100 - float(found[2])


def test_slider_moves_by_key_mouse_and_finger(written: Path, chromium: Browser) -> None:
    chromium.open(written.as_uri(), width=390, height=844)
    chromium.script("document.querySelector('.stage').scrollIntoView({block: 'center'})")
    left, top, width, height = chromium.script(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.stage').getBoundingClientRect())"
    )
    assert cut(chromium) == 50
    chromium.script("document.querySelector('.stage input').focus()")
    chromium.press("ArrowRight", 39)
    assert cut(chromium) == 51
    middle = top + height / 2
    chromium.drag((left + width / 2, middle), (left + width * 0.25, middle))
    assert cut(chromium) == pytest.approx(25, abs=1)
    chromium.swipe((left + width * 0.3, middle), (left + width * 0.8, middle))
    chromium.wait_for("document.querySelector('.stage input').value > 70")
    assert cut(chromium) == pytest.approx(80, abs=2)
    chromium.script("document.querySelector('.sides input[value=clean]').click()")
    assert chromium.script("getComputedStyle(document.querySelector('img.clean')).visibility") == "visible"
    assert chromium.complaints == []


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_is_never_wider_than_the_window(written: Path, chromium: Browser, width: int) -> None:
    chromium.open(written.as_uri(), width=width)
    assert chromium.script("document.documentElement.scrollWidth") <= width
