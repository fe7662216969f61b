"""Who imports whom, read from the source."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "models", "data", "studies")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
OPTUNA_DOORS = {
    "search/sampling.py",
    "search/storage.py",
    "search/leases.py",
    "search/patience.py",
    "search/transactions.py",
    "search/importance.py",
    "search/upkeep.py",
    "search/kinship.py",
    "search/neighbours.py",
    "search/planned.py",
    "search/gaussian.py",
    "search/places.py",
    "search/worker.py",
    "search/trial_setup.py",
    "search/watch.py",
}
WITHOUT_TORCH = {
    "search/space.py",
    "search/rungs.py",
    "search/policy.py",
    "search/queue.py",
    "search/sampling.py",
    "search/storage.py",
    "search/leases.py",
    "search/patience.py",
    "search/transactions.py",
    "search/sqlite.py",
    "search/errors.py",
    "search/progress.py",
    "search/study.py",
    "search/trial_facts.py",
    "search/study_facts.py",
    "search/folders.py",
}
# What a trial, and whoever restores images, may import of the search.
BELOW_A_TRIAL = ("search.device",)
# Pure values and functions: what they may import of the project, and of other packages.
POLICY = {"search/rungs.py", "search/policy.py"}
POLICY_MAY_IMPORT = {"search.rungs", "pydantic"}
# What the command line may import of the project before it knows which command is meant.
AT_ONCE = {"search.commands", "search.commands.endings", "search.errors"}


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written out from the top"
            assert node.module is not None
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imported_at_once(path: Path) -> Iterator[str]:
    """Names of the modules that a file's first lines import."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_there_are_files_to_read() -> None:
    assert {"search/run.py", "data/images.py", "models/dncnn.py"} <= {str(p.relative_to(ROOT)) for p in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_plan(path: Path) -> None:
    name, package = str(path.relative_to(ROOT)), path.relative_to(ROOT).parts[0]
    modules = tops(path)
    if name not in OPTUNA_DOORS:
        assert "optuna" not in modules, "Optuna is reached through its doors only"
    assert "torchvision" not in modules
    assert "tests" not in modules
    if package in ("models", "data", "studies"):
        assert not modules & (set(PACKAGES) - {package}), "lower packages know neither search nor each other"
    if name in WITHOUT_TORCH:
        assert "torch" not in modules
    if name.startswith("search/trial/"):
        below = ("search.trial", *BELOW_A_TRIAL)
        above = {m for m in imported(path) if m.startswith("search.") and not m.startswith(below)}
        assert not above, "a trial knows nothing of the study around it"


def test_only_the_device_module_names_cuda() -> None:
    naming = {
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "search").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.cuda", "torch.mps", "torch.xpu")
    }
    assert naming == {"search/device.py"}


def test_policy_imports_nothing_of_the_study_around_it() -> None:
    for name in POLICY:
        known = {
            module
            for module in imported_at_once(ROOT / name)
            if module.split(".")[0] not in sys.stdlib_module_names
        }
        assert known <= POLICY_MAY_IMPORT, name


def test_command_line_imports_torch_only_inside_a_command() -> None:
    commands = sorted((ROOT / "search" / "commands").glob("*.py"))
    for path in [ROOT / "search" / "__main__.py", *commands]:
        ours = {name for name in imported_at_once(path) if name.split(".")[0] not in sys.stdlib_module_names}
        assert ours <= AT_ONCE, path
