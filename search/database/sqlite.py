"""Checks of an SQLite file before it is used as database."""

import functools
import sqlite3
from pathlib import Path

import sqlalchemy

from search.errors import UserError

BUSY_TIMEOUT_S = 60


def sqlite_file(url: sqlalchemy.URL) -> Path | None:
    """The file of a database URL; None for a server."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def prepare_sqlite(path: Path, create: bool) -> None:
    """Check that a file can be used, and set its write-ahead log, so that readers and a writer do not block each other.

    `UserError` for a file of another program, one that cannot be written or is damaged, and, unless `create`, one that
    does not exist.
    """
    if not path.exists() and not create:
        raise UserError(f"{path}: no such database; `python -m search run` makes it")
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        tables = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
        if not tables and not create:
            raise UserError(f"{path}: no study has been written to it yet")
        if tables and not {"studies", "version_info"} <= tables:
            shown = ", ".join(sorted(tables)[:3])
            raise UserError(
                f"{path}: a database of another program (tables {shown}); --storage names another"
            )
        if damage := _damage(path.resolve()):
            raise UserError(f"{path}: damaged: {damage}\n{how_to_mend(path)}")
        connection.execute("pragma journal_mode = wal")
        connection.execute("begin immediate")
        connection.rollback()
    except sqlite3.DatabaseError as error:
        mend = f"\n{how_to_mend(path)}" if "malformed" in str(error) else ""
        raise UserError(f"{path}: cannot be used as a database: {error}{mend}") from None
    finally:
        if connection is not None:
            connection.close()


def how_to_mend(path: Path) -> str:
    """Advice on repairing a damaged file."""
    return (
        f"Stop all that use it, put a copy in its place, or save what is left: "
        f"sqlite3 {path} .recover | sqlite3 {path.with_name('mended.db')}"
    )


@functools.cache  # reads the whole file: 0.13 s for 95 MB
def _damage(path: Path) -> str:
    """The first fault that SQLite's quick check finds; empty for an intact file. Checked once for each process."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        found = str(connection.execute("pragma quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:  # locked or read-only: reported elsewhere
        return ""
    finally:
        connection.close()
    return "" if found == "ok" else " ".join(found.split())
