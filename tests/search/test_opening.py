"""What is said before a search begins."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data import DataError
from search import opening, storage, study
from search.run_options import RunOptions

DNCNN = 'kind = "dncnn"\nlayers = 3\nwidth = { choices = [4, 6] }'
KBNET = 'kind = "kbnet_s"\nwidth = { choices = [4, 8] }\nencoder_blocks = [1]\nmiddle_blocks = 1\ndecoder_blocks = [1]'
ON_LUMINANCE = 'kind = "luminance"\nmodel = { kind = "kbnet_s", width = 4 }'


@pytest.mark.parametrize(
    ("model", "reason", "said"),
    [
        (KBNET, "no C++ compiler found", True),
        (ON_LUMINANCE, "no C++ compiler found", True),
        (KBNET, None, False),
        (DNCNN, "no C++ compiler found", False),
    ],
    ids=["kbnet", "kbnet on luminance", "compiled", "another model"],
)
def test_operator_that_is_not_compiled_is_mentioned_where_it_matters(
    model: str,
    reason: str | None,
    said: bool,
    study_file: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "why_not_compiled", lambda: reason)
    spec = study.load(str(study_file((DNCNN, model), ("patch = 8", "patch = 16"))))
    options = RunOptions(storage.default_url(out), out, torch.device("cpu"), quiet=True)
    lines = opening.open_search(spec, options).lines
    line = f"KBNet's operator is not compiled ({reason}): it trains several times slower"
    assert (line in lines) == said


@pytest.mark.parametrize("quiet", [False, True])
def test_compiling_is_announced_and_done_once(
    quiet: bool,
    study_file: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[str] = []
    monkeypatch.setattr(opening, "is_to_be_built", lambda name: name not in done)
    monkeypatch.setattr(opening, "why_not_compiled", lambda: done.append("kernel_basis"))
    options = RunOptions(storage.default_url(out), out, torch.device("cpu"), quiet=quiet)
    for model, times in ((DNCNN, 0), (KBNET, 1), (KBNET, 1)):
        opening.compile_operator(study.load(str(study_file((DNCNN, model)))), options)
        assert len(done) == times
    assert capsys.readouterr().out.count("compiling KBNet's operator") == (0 if quiet else 1)


def test_wrong_pairs_are_refused_before_anything_is_compiled(
    study_file: Callable[..., Path], out: Path, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file((DNCNN, KBNET))
    path.write_text(path.read_text().replace(str(pairs_folder), str(pairs_folder / "elsewhere")))
    monkeypatch.setattr(opening, "is_to_be_built", lambda name: True)
    monkeypatch.setattr(opening, "why_not_compiled", lambda: pytest.fail("compiled"))
    options = RunOptions(storage.default_url(out), out, torch.device("cpu"))
    with pytest.raises(DataError, match="elsewhere"):
        opening.compile_operator(study.load(str(path)), options)
