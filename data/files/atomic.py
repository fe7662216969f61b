"""Files that are whole whenever anyone sees them: written under another name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which replaces `path` once all is written.

    Where writing fails, `path` stays what it was, and nothing is left beside it.
    """
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
