"""What a person reads while a search runs."""

import time

import pytest

from search.terminal import Progress
from search.text import clock


def progress(quiet: bool = False) -> Progress:
    return Progress("tiny", input_psnr_db=20.0, trials=4, deadline=time.monotonic() + 100, quiet=quiet)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3675, "1:01:15")])
def test_clock_reads_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_plain_lines_about_a_running_trial_come_at_most_every_so_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = progress()
    with shown:
        shown.start("trial 3", 0, 100)
        shown.stepped(50, 100, 0.125)
        shown.scored(28.5)
        assert capsys.readouterr().out == ""
        monkeypatch.setattr("search.terminal.PLAIN_EVERY_S", 0.0)
        shown.scored(28.5)
    assert "trial 3  step 50/100  loss 0.1250  28.50 dB" in capsys.readouterr().out


def test_a_trial_without_steps_left_is_being_scored(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress()
    for steps in (0, 100):
        shown.start("trial 3", steps, steps)
        shown.console.print(shown._render())
    for line in capsys.readouterr().out.splitlines()[1::2]:
        assert " ".join(line.split()) == "━" * 24 + " trial 3 scoring whole images no score yet"


def test_lines_are_not_cut_and_their_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    line = "blocks=[red][2, 4] " * 20
    progress().say(line)
    assert capsys.readouterr().out == line + "\n"


def test_best_is_the_highest_score_offered() -> None:
    shown = progress()
    for number, psnr_db in enumerate((21.0, 23.0, 22.0)):
        shown.ended("done", psnr_db, number)
    shown.ended("pruned", None, 3)
    assert shown.best == (23.0, "trial 1")
    assert shown.counts == {"done": 3, "pruned": 1, "failed": 0}


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress(quiet=True)
    with shown:
        shown.say("hello")
        shown.start("trial 0", 0, 10)
        shown.scored(20.0)
    assert capsys.readouterr().out == ""
