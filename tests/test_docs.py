"""The READMEs: links lead somewhere, files that they name exist, commands and flags that they show are known."""

import argparse
import ast
import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.__main__ import COMMANDS, parse

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
).stdout.splitlines()
# Without git, as in an unpacked archive: the same but for what git ignores.
PAGES = sorted(
    [ROOT / name for name in LISTED]
    or [page for page in ROOT.rglob("*.md") if not {"runs", ".venv", "build"} & {*page.parts}]
)
MOST_LINES = 180

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
FILE = re.compile(r"[\w./-]+\.(?:py|toml|md)")
FOLDER = re.compile(r"[\w.-]+(?:/[\w.-]+)*/")
FLAG = re.compile(r"--[a-z][a-z-]*")
PROGRAM = re.compile(r"python -m (search(?:\.\w+)*|tests\.benchmarks\.\w+)((?: [^\n]*)?)")
# What users have, and what commands make: no files of the repository.
THEIRS = ("my_", "my.toml", "mine.toml", "runs/", "/shared/", "restored/", "mended/")


def texts(page: Path) -> Iterator[tuple[bool, str]]:
    """The page in parts: whether each is code (fenced or indented), and its text."""
    fenced = code = False
    part: list[str] = []
    for line in page.read_text("utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        is_code = fenced or fence or line.startswith("    ")
        if line.strip() and is_code != code:
            yield code, "\n".join(part)
            part, code = [], is_code
        part.append("" if fence else line)
        fenced ^= fence
    yield code, "\n".join(part)


def prose(page: Path) -> str:
    return "\n".join(text for code, text in texts(page) if not code)


def spans(page: Path) -> list[str]:
    """What stands between backquotes."""
    return [" ".join(found[1].split()) for found in SPAN.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every program that the page calls, `search COMMAND` or a module, and the flags that stand behind it."""
    code = [text.replace("\\\n", " ") for is_code, text in texts(page) if is_code]
    lines = [line for text in code for line in text.splitlines()] + spans(page)
    for line in lines:
        for part in re.split(r"&& | \| |; ", line):
            if found := PROGRAM.search(part):
                try:
                    words = shlex.split(found[2], comments=True)
                except ValueError:  # a quote that ends elsewhere
                    words = found[2].split()
                flags = [word.split("=")[0] for word in words if FLAG.fullmatch(word.split("=")[0])]
                program = found[1]
                if program == "search" and words and not words[0].startswith("-"):
                    program, _ = f"search {words[0]}", words.pop(0)
                yield program, flags


@functools.cache
def known_flags(program: str) -> set[str]:
    """The flags of a command that its help shows; of another program, those that its source names."""
    if program.startswith("search "):
        known: set[str] = set()

        def noted(parser: argparse.ArgumentParser, file: object = None) -> None:
            assert parser.format_help()
            shown = (action for action in parser._actions if action.help != argparse.SUPPRESS)
            known.update(flag for action in shown for flag in action.option_strings)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "print_help", noted)
            with pytest.raises(SystemExit) as end:
                parse([program.removeprefix("search "), "--help"])
        assert end.value.code in (0, None)
        return known
    if program == "search":
        return {"--help", "--version"}
    source = ast.parse(module(program).read_text("utf-8"))
    return {
        node.value
        for node in ast.walk(source)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FLAG.fullmatch(node.value)
    } | {"--help"}


def module(program: str) -> Path:
    return ROOT / (program.replace(".", "/") + ".py")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


each = pytest.mark.parametrize("page", PAGES, ids=name)


def test_the_readme_is_short() -> None:
    assert ROOT / "README.md" in PAGES
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= MOST_LINES


@each
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    lost = []
    for target in LINK.findall(prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    assert not lost


@each
def test_files_that_are_named_exist(page: Path) -> None:
    lost = []
    for span in spans(page):
        named = span.rstrip(":")
        if not (FILE.fullmatch(named) or FOLDER.fullmatch(named)) or named.startswith(THEIRS):
            continue
        if not any((start / named).exists() for start in (ROOT, page.parent)):
            lost.append(named)
    assert not lost


@each
def test_commands_that_are_shown_exist_and_know_their_flags(page: Path) -> None:
    unknown = []
    for program, flags in commands(page):
        if program.startswith("search ") and program.removeprefix("search ") in ("COMMAND", "CMD"):
            continue
        if program.startswith("search "):
            exists = program.removeprefix("search ") in COMMANDS
        else:
            exists = program == "search" or module(program).exists()
        if not exists:
            unknown.append(program)
        else:
            unknown += [f"{program} {flag}" for flag in flags if flag not in known_flags(program)]
    assert not unknown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_names_its_flags(command: str) -> None:
    assert "--help" in known_flags(f"search {command}")


@each
def test_flags_that_stand_alone_belong_to_some_command(page: Path) -> None:
    shown = {flag for _, flags in commands(page) for flag in flags}
    everywhere = set().union(*(known_flags(f"search {command}") for command in COMMANDS), {"--version"})
    benchmarks = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))
    measured = set().union(*(known_flags(f"tests.benchmarks.{path.stem}") for path in benchmarks))
    mentioned = {word for span in spans(page) if span.startswith("--") for word in FLAG.findall(span)}
    assert not mentioned - shown - everywhere - measured


def test_wrong_links_files_commands_and_flags_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading: of two\n\n[a](page.md#a-heading-of-two) [b](gone.md) [c](page.md#no) `gone.py` `here/`\n\n"
        "    python -m search run --stduy kbnet && python -m search export-best --top 2  # --no\n\n"
        "`python -m search fly --far` and `python -m tests.benchmarks.check --data DIR`\n",
        "utf-8",
    )
    assert LINK.findall(prose(page)) == ["page.md#a-heading-of-two", "gone.md", "page.md#no"]
    assert anchors(page) == {"a-heading-of-two"}
    assert list(commands(page)) == [
        ("search run", ["--stduy"]),
        ("search export-best", ["--top"]),
        ("search fly", ["--far"]),
        ("tests.benchmarks.check", ["--data"]),
    ]
    assert "--stduy" not in known_flags("search run")
    assert {"--top", "--to"} <= known_flags("search export-best")
    for check in (
        test_links_and_pictures_lead_somewhere,
        test_files_that_are_named_exist,
        test_commands_that_are_shown_exist_and_know_their_flags,
    ):
        with pytest.raises(AssertionError):
            check(page)
