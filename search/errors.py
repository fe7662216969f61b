"""Errors that a user can cause and mend: shown as one or two lines, exit code 2."""

import difflib


class UserError(Exception):
    """Says where, what was found and what is allowed."""


def first_line(error: BaseException) -> str:
    """The message without what follows its first line; the kind of error where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def closest(name: str, known: list[str]) -> str:
    """'; did you mean X?' for the known name that looks most like `name`, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
