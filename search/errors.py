"""Errors that a user can cause and mend: shown as one or two lines, exit code 2."""

import difflib


class UserError(Exception):
    """Says where, what was found and what is allowed."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class where there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def closest(name: str, known: list[str]) -> str:
    """'; did you mean X?' for the known name that looks most like `name`, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
