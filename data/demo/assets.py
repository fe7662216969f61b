"""Pictures and fonts that installed packages ship, without importing (or downloading) anything."""

from importlib.util import find_spec
from pathlib import Path

from data.files import DataError


def shipped_file(path: str) -> Path:
    """The file at "package/path/inside/it". Raises DataError if this version of the package has none such."""
    package, _, inside = path.partition("/")
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path(package)
    if not (folder / inside).is_file():
        raise DataError(f"{folder / inside}: not shipped by the installed {package}; the demo set needs it")
    return folder / inside
