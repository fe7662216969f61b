"""Values in words, as people read them: durations, sizes, counts, settings."""

from typing import Any


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
