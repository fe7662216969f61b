"""The flags of a worker without the database: its URL goes by the environment, which no list of processes shows."""

from collections.abc import Mapping

STORAGE_VARIABLE = "RESTUNE_STORAGE"
"""The environment variable that may hold the URL of the database."""


def with_hidden_url(arguments: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Flags for the command line of a worker, and what its environment has beside ours."""
    flags = [word for flag, value in arguments.items() if flag != "--storage" for word in (flag, value)]
    return flags, {STORAGE_VARIABLE: arguments["--storage"]} if "--storage" in arguments else {}
