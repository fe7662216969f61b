"""Texts of strangers: what may steer a terminal is shown and does nothing; Markdown shows them as they are."""

import io
import re
import sys

import pytest

from search.terminal import PrintableStream, Terminal, printable_output
from search.text import code_markdown, plain_markdown, printable

EVIL = "\x1b[2J\x1b]0;title\x07 \x9b31m \u202egpj.exe \r\x08 문서 👩\u200d🔬"


@pytest.mark.parametrize("sign", [*map(chr, [*range(32), *range(0x7F, 0xA0)]), "\u202e", "\u2066", "\ud800"])
def test_no_sign_that_steers_a_terminal_comes_through(sign: str) -> None:
    assert (sign in printable(f"a{sign}b")) == (sign in "\n\t")


def test_text_of_any_script_stays() -> None:
    for text in ("문서 1", "क्षि", "می\u200cخواهم", "👩\u200d🔬", "a\tb\n"):
        assert printable(text) == text


def test_what_is_printed_while_a_command_runs_is_fit_for_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with printable_output():
        print(EVIL)
        print(EVIL, file=sys.stderr)
        assert isinstance(sys.stdout, PrintableStream)
    said = capsys.readouterr()
    assert not re.search("[\x1b\x07\x08\x9b\u202e\r]", said.out + said.err)
    assert "문서" in said.out


def test_console_steers_and_names_in_it_do_not() -> None:
    said = io.StringIO()
    terminal = Terminal(file=said, force_terminal=True, color_system="standard", highlight=False)
    terminal.print(EVIL, style="bold", markup=False)
    assert said.getvalue().count("\x1b") == 2  # bold on, bold off
    assert "\x1b[1m" in said.getvalue()


@pytest.mark.parametrize(
    "evil",
    [
        "<script>",
        "[x](javascript:y)",
        "![x](http://y)",
        "a|b",
        "`x`",
        "# x",
        "**x**",
        "~~x~~",
        "<http://x>",
        "&lt;",
    ],
)
def test_markdown_shows_a_text_as_it_is(evil: str) -> None:
    shown = plain_markdown(evil)
    assert not re.search(r"(?<!\\)[<>\[\]`|*#!~&]", shown)
    assert re.sub(r"\\(.)", r"\1", shown).replace("\u2060", "") == evil


@pytest.mark.parametrize("text", ["x", "a`b", "``", "a|b", "x\ny"])
def test_code_in_markdown_ends_where_it_should(text: str) -> None:
    fence = re.match("`+", code_markdown(text))
    assert fence is not None
    assert fence[0] not in text
    assert code_markdown(text).endswith(fence[0])
    assert "\n" not in code_markdown(text)
