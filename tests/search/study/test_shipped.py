"""Every shipped study that is meant for a plain CPU trains; a new model needs one file and its name in the list."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.sources import Split
from search.inference import Score
from search.study import KnownSuggester, StudySpec, fill_leaves, shipped_specs, with_replacements
from search.trial import TrialConfig, train

ROOT = Path(__file__).parents[3]
STUDIES = [spec for spec in shipped_specs() if not spec.name.endswith("_gpu")]

TOY = '''
"""One factor for the whole image."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class ToyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["toy"] = "toy"
    channels: Literal[1, 3] = 3

    def build(self) -> "Toy":
        return Toy()


class Toy(nn.Module):
    size_multiple = 1

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, degraded: Tensor) -> Tensor:
        return self.factor * degraded

    body = forward

    def prunable(self) -> list[tuple[str, nn.Parameter]]:
        return []
'''

TOY_STUDY = """
name = "toy"
trials = 1
ladder = { rungs = 0 }
[recipe]
steps = 60
crops = { batch = 2, patch = 8 }
model = { kind = "toy" }
optimizer = { kind = "adamw", lr = 2e-2 }
ema_decay = 0.5
"""


class Silent:
    def begun(self, step: int, rungs: list[Score], seconds: float) -> None: ...
    def stepped(self, step: int, steps: int, loss: torch.Tensor) -> None: ...
    def scored(self, score: Score, dense: bool) -> None: ...
    def rescued(self, note: str) -> None: ...
    def stop_requested(self) -> bool:
        return False


@pytest.mark.parametrize("spec", STUDIES, ids=lambda spec: spec.name)
def test_first_recipe_of_every_study_trains(spec: StudySpec, split: Split, tmp_path: Path) -> None:
    known = spec.first[0]
    tree = fill_leaves(with_replacements(spec.recipe, known.recipe), KnownSuggester(known.values))
    tree["model"]["channels"] = split.channels
    tree["steps"] = min(tree.get("steps", 2), 2)
    result = train(TrialConfig.model_validate(tree), split, torch.device("cpu"), tmp_path, Silent())
    assert result.score.psnr_db > 5
    assert result.weights.is_file()


def test_a_new_model_is_one_file_and_its_name_in_the_list(tmp_path: Path, pairs_folder: Path) -> None:
    for package in ("search", "models", "data", "studies"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models" / "toy.py").write_text(TOY, encoding="utf-8")
    known = tmp_path / "models" / "__init__.py"
    listed = known.read_text(encoding="utf-8")
    for before, after in (
        ("NetworkConfig = ", "from models.toy import ToyConfig\n\nNetworkConfig = "),
        ("KBNetSConfig | ", "KBNetSConfig | ToyConfig | "),
    ):
        assert listed.count(before) == 1
        listed = listed.replace(before, after)
    known.write_text(listed, encoding="utf-8")
    (tmp_path / "toy.toml").write_text(TOY_STUDY, encoding="utf-8")
    command = [sys.executable, "-m", "search", "run", "--study", "toy.toml", "--data", str(pairs_folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "best: trial 0" in done.stdout
    assert float(done.stdout.split("(+")[-1].split(" over")[0]) > 0.5  # the scans are darker by 0.7
