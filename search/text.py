"""Values in words, as people read them: durations, sizes, counts, settings."""

import re
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = "\\`*_[]<>#|~&!"


def printable(text: str) -> str:
    """The same without signs that steer a terminal: names come from files and databases of others.

    Line ends and tabs stay. An escape becomes its picture, what has none the sign for unknown ones.
    """
    return _CONTROL.sub(lambda sign: chr(0x2400 + ord(sign[0])) if sign[0] < " " else "\ufffd", text)


def has_control_signs(text: str) -> bool:
    """Whether a name would break a line, or steer a terminal."""
    return bool(_CONTROL.search(text)) or "\n" in text or "\t" in text


def plain_markdown(text: str) -> str:
    """Any text as Markdown that shows it as it is, on one line: no link, no HTML, no emphasis."""
    shown = " ".join(printable(text).split())
    for sign in _MARKDOWN:
        shown = shown.replace(sign, f"\\{sign}")
    # What looks like an address would become a link by itself.
    return re.sub(r"(?i)\b(https?|ftp|www|mailto|xmpp)(?=[:.])", lambda word: f"{word[0]}\u2060", shown)


def code_markdown(text: str) -> str:
    """Any text as Markdown in the type of code, on one line and in a cell of a table."""
    shown = " ".join(printable(text).split()).replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " * (len(fence) > 1)
    return f"{fence}{space}{shown}{space}{fence}"


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def duration_flag(seconds: float) -> str:
    """5400 -> "90m", as a flag takes it."""
    for unit, letter in ((3600, "h"), (60, "m")):
        if seconds % unit == 0 and seconds >= unit:
            return f"{seconds / unit:.0f}{letter}"
    return f"{seconds:.0f}s"


def gigabytes(size: float) -> str:
    """Bytes for people: "1.5 GB"."""
    return f"{size / 2**30:.1f} GB" if size >= 0.95 * 2**30 else f"{size / 2**20:.0f} MB"


def in_thousands(count: int | None) -> str:
    """45001 -> "45.0k"."""
    if count is None:
        return "-"
    if count < 1000:
        return str(count)
    return f"{count / 1e3:.1f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


def short_number(value: float) -> str:
    """A tick in few letters: 45k, 1.5M, 0.02."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.6g}"


def format_setting(value: Any) -> str:
    """A setting as people write it: 0.00312, 1e-05, [1, 2], none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value is None else str(value)
