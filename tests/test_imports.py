"""Who imports whom, read from the source: the rules of search/README.md, followed through every room."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "models", "data", "studies")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_MODULES = 14

# From top to bottom: a room imports itself and rooms of lower floors.
FLOORS = (
    ("search.__main__",),
    ("search.commands",),
    ("search.dashboard",),
    ("search.report",),
    ("search.analysis", "search.plan", "search.restore"),
    ("search.launch", "search.export"),
    ("search.worker",),
    ("search.samplers", "search.manage"),
    ("search.database",),
    ("search.study",),
    ("search.trial", "search.statistics"),
    ("search.inference", "search.datacheck"),
    ("search.scheduler", "search.terminal"),
    ("search.text", "search.errors"),
    ("data", "models", "studies"),
    ("data.demo", "data.doctor"),
    ("data.sources",),
    ("data.cropping", "data.likeness", "models.kernel_basis"),
    ("data.files", "models.layers"),
)
HEIGHT = {room: len(FLOORS) - floor for floor, rooms in enumerate(FLOORS) for room in rooms}

OPTUNA = {
    "search.samplers",
    "search.database",
    "search.analysis.importance",
    "search.worker.run_trial",
    "search.worker.trial_setup",
    "search.worker.callback",
    "search.dashboard",
}
# None of these loads torch, by whatever way.
WITHOUT_TORCH = ("search.errors", "search.terminal", "search.text", "search.scheduler")
PRIVATE_OF_OPTUNA = {"_trial_id", "_study_id", "_storage", "_backend", "_cached_frozen_trial"}
# Offered to programs that use this one: the code in a model card imports them.
PUBLIC = {"load_model", "decode_image", "to_codes", "to_tensor", "with_channels", "write_png"}
# What the command line may import of the project before it knows which command is meant.
AT_ONCE = {"search.commands", "search.commands.output", "search.errors", "search.text"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


@cache
def doors() -> dict[str, dict[str, str]]:
    """By room: each name that it offers, and the module that has it."""
    found = {}
    for path in FILES:
        if path.name == "__init__.py" and (stub := path.with_suffix(".pyi")).exists():
            room = name_of(path)
            found[room] = {
                name.asname or name.name: f"{room}.{node.module}"
                for node in ast.parse(stub.read_text("utf-8")).body
                if isinstance(node, ast.ImportFrom)
                for name in node.names
            }
    return found


def room_of(module: str) -> str:
    """The innermost room that a module is in; a module directly in search/ is one by itself."""
    return max((room for room in HEIGHT if f"{module}.".startswith(f"{room}.")), key=len)


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of everything imported, "" for a whole module. Not what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out from the top"
            assert node.module is not None
            yield from ((node.module, name.name) for name in node.names)
        else:
            yield from imports(node)


@cache
def imported(module: str) -> frozenset[tuple[str, str]]:
    return frozenset(imports(ast.parse(MODULES[module].read_text("utf-8"))))


@cache
def reached(module: str) -> frozenset[str]:
    """The modules of the project that a module imports itself, behind the doors of their rooms."""
    found = set()
    for source, name in imported(module):
        if f"{source}.{name}" in MODULES:
            found.add(f"{source}.{name}")
        elif source in MODULES:
            found.add(doors().get(source, {}).get(name, source))
    return frozenset(found - {module})


def reached_in_the_end(module: str) -> set[str]:
    """All that is loaded with a module, itself included."""
    found, new = set[str](), {module}
    while new:
        found |= new
        new = {other for one in new for other in reached(one)} - found
    return found


def used_by_others(room: str) -> set[str]:
    """What modules of other rooms import from this one, types included."""
    return {
        name.name
        for module, path in MODULES.items()
        if module != "search" and room_of(module) != room
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == room
        for name in node.names
    }


def tops(module: str) -> set[str]:
    return {source.split(".")[0] for source, _ in imported(module)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_keep_to_the_floors_and_to_the_doors(module: str) -> None:
    if module == "search":
        return
    room = room_of(module)
    for source, name in imported(module):
        if source.split(".")[0] not in PACKAGES:
            continue
        whole = f"{source}.{name}" if f"{source}.{name}" in MODULES else source
        other = room_of(whole)
        if other == room or (f"{other}.".startswith(f"{room}.") and room in ("data", "models")):
            continue
        assert HEIGHT[other] < HEIGHT[room], f"{room} is not above {other}"
        if room == "search.__main__" or other in (
            "search.errors",
            "search.terminal",
            "search.text",
            "studies",
        ):
            continue
        assert source == other, f"{source}.{name}: a room is entered by its door"
        if other in doors():
            assert name in doors()[other], f"{other} does not offer {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_libraries_are_used_where_they_belong(module: str) -> None:
    text, modules = MODULES[module].read_text("utf-8"), tops(module)
    assert not modules & {"torchvision", "tests"}
    if not any(f"{module}.".startswith(f"{door}.") for door in OPTUNA):
        assert "optuna" not in modules, "Optuna is reached through its rooms only"
    if not module.startswith("search.database"):
        attributes = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        assert not attributes & PRIVATE_OF_OPTUNA, "private parts of Optuna are for search/database alone"
    if module.startswith("search.") and module != "search.inference.device":
        assert not re.search(r"torch\.cuda|\.mps\b|torch\.xpu", text), (
            "devices are for search/inference/device.py"
        )
    if module.startswith("search.scheduler."):
        ours = {source for source, _ in imported(module) if source.split(".")[0] in PACKAGES}
        assert all(source.startswith("search.scheduler") for source in ours)
        assert modules - {"search"} <= sys.stdlib_module_names | {"pydantic"}


@pytest.mark.parametrize("module", [m for m in sorted(MODULES) if m.startswith(WITHOUT_TORCH)])
def test_nothing_loads_torch_by_a_detour(module: str) -> None:
    heavy = {one for one in reached_in_the_end(module) if "torch" in tops(one)}
    assert not heavy


def test_no_module_imports_itself_by_a_detour() -> None:
    done, path = set[str](), list[str]()

    def walk(module: str) -> None:
        assert module not in path, f"a circle: {' > '.join([*path[path.index(module) :], module])}"
        if module not in done:
            path.append(module)
            for other in sorted(reached(module)):
                walk(other)
            done.add(path.pop())

    for module in MODULES:
        walk(module)


@pytest.mark.parametrize("room", sorted(doors()))
def test_room_says_what_it_is_for_and_offers_what_others_use(room: str) -> None:
    package, offered = MODULES[room], doors()[room]
    documentation = ast.get_docstring(ast.parse(package.read_text("utf-8"))) or ""
    assert len(documentation.split("\n")) >= 3
    assert "Imports" in documentation
    assert len([path for path in package.parent.glob("*.py") if path.name != "__init__.py"]) <= MOST_MODULES
    loaded = importlib.import_module(room)
    for name, module in offered.items():
        # Else the module would take the place of the name as soon as it is loaded.
        assert f"{room}.{name}" not in MODULES, f"{name} is a module of {room} too"
        assert hasattr(importlib.import_module(module), name)
        assert hasattr(loaded, name)
    assert offered.keys() <= PUBLIC | used_by_others(room), "a door offers what others use, and nothing else"


def test_command_line_imports_torch_only_inside_a_command() -> None:
    commands = [module for module in MODULES if module.startswith("search.commands.")]
    for module in ["search.__main__", *commands]:
        at_once = {
            name
            for node in ast.parse(MODULES[module].read_text("utf-8")).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
        }
        ours = {name for name in at_once if name.split(".")[0] not in sys.stdlib_module_names}
        assert ours <= AT_ONCE, module
