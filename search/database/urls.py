"""The URL of a database: read as it was typed, and shown without its password."""

import re
import shlex
from pathlib import Path

import sqlalchemy

from data.files import expand_home
from search.errors import UserError, first_line

KINDS = {"sqlite": "sqlite", "postgres": "postgresql", "postgresql": "postgresql"}
"""How a URL may begin, and what SQLAlchemy calls it. Services hand out `postgres://`, too."""
DRIVERS = ("", "pysqlite", "psycopg", "psycopg2")
ESCAPES = "@ : / % in a password are written %40 %3A %2F %25"
_SIGNS = {
    "%": "%25",
    "?": "%3F",
    "#": "%23",
    "{": "%7B",
    "}": "%7D",
}  # what a URL, or Optuna, would take otherwise


def default_storage_url(out: Path) -> str:
    """The database of a runs folder: the one that optuna-dashboard is pointed at."""
    path = (out / "search.db").as_posix()
    return "sqlite:///" + "".join(_SIGNS.get(sign, sign) for sign in path)


def parse_url(text: str) -> sqlalchemy.URL:
    """The parts of a database URL, `~` of an SQLite file expanded. `UserError` for what cannot be one."""
    shown = f"--storage {without_password(text)}"
    scheme, found, rest = text.partition("://")
    kind, _, driver = scheme.partition("+")
    if not found:
        raise UserError(f"{shown}: not a database URL; write sqlite:///FILE or postgresql://...")
    if kind not in KINDS or driver not in DRIVERS:
        raise UserError(f"{shown}: not supported; write sqlite:///FILE or postgresql://USER@HOST/NAME")
    if kind == "sqlite":
        return _sqlite_url(rest, shown)
    if "@" in rest.partition("?")[0].rpartition("@")[0]:
        raise UserError(f"{shown}: has more than one @; {ESCAPES}")
    try:
        url = sqlalchemy.make_url(f"{KINDS[kind]}{'+' * bool(driver)}{driver}://{rest}")
    except ValueError:
        raise UserError(f"{shown}: its port is not a number; {ESCAPES}") from None
    except sqlalchemy.exc.ArgumentError:
        raise UserError(
            f"{shown}: not a database URL; write postgresql://USER@HOST/NAME; {ESCAPES}"
        ) from None
    if url.port is not None and not 0 < url.port < 2**16:
        raise UserError(f"{shown}: its port is not a number from 1 to 65535")
    return url


def url_for_optuna(url: sqlalchemy.URL) -> str:
    """The whole URL. Optuna fills in what stands in braces."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def without_password(text: str) -> str:
    """A URL, or whatever was typed in its place, fit to be shown: everything secret is ***.

    A password with an @ of its own is hidden to its end; what stands for a port and is none may be a password.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        return text
    head, mark, query = rest.partition("?")
    if "@" in query:  # as a part of the password
        head, mark, query = rest, "", ""
    if not head.startswith("/"):
        who, at, place = head.rpartition("@")
        user = re.split("[:@]", who)[0]
        place = re.sub(r"^(\[[^\]]*\]|[^:/]*):(?!\d*(/|$))[^/]*", r"\1:***", place)
        head = f"{user}{':***' * (user != who)}{at}{place}"
    query = re.sub(
        r"((?:^|&)\w*(?:password|passfile|secret|token)\w*=)[^&]*", r"\1***", query, flags=re.IGNORECASE
    )
    return f"{scheme}://{head}{mark}{query}"


def command_without_passwords(command: str) -> str:
    """A typed line fit to be shown, and kept."""
    try:
        words = shlex.split(command)
    except ValueError:
        return re.sub(r"\S+://.*", lambda found: without_password(found[0]), command)
    return shlex.join(map(without_password, words))


def why_not_opened(error: BaseException, url: sqlalchemy.URL) -> str:
    """What a driver said, in a line, without the password."""
    said = first_line(getattr(error, "orig", None) or error)
    return said.replace(str(url.password), "***") if url.password else said


def _sqlite_url(rest: str, shown: str) -> sqlalchemy.URL:
    where, slash, path = rest.partition("/")
    if where or "?" in path:
        hint = "three slashes before a path" if where else "? in a file name is written %3F"
        raise UserError(f"{shown}: write sqlite:///FILE, {hint}")
    url = sqlalchemy.make_url(f"sqlite://{slash}{path}")
    if not url.database or url.database == ":memory:":
        raise UserError(f"{shown}: results must outlive this process; write sqlite:///FILE")
    if url.database.startswith("file:"):
        raise UserError(f"{shown}: write the path without file:")
    return url.set(database=str(expand_home(url.database)))
