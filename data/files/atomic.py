"""Files that are whole whenever anyone sees them: written under another name, then renamed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which replaces `path` once all is written.

    Where writing fails, `path` stays what it was, and nothing is left beside it.
    """
    # No part of the name itself: with anything added, the longest names would be too long.
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    partial = path.with_name(f".{digest}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
