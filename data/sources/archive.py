"""The files of a folder of pairs as one parcel, to be taken along to other machines."""

import io
import zipfile
from pathlib import Path

from data.sources.folders import find_parts, find_sides, match_names
from data.sources.pairs import PairsConfig
from data.sources.split import divided


def pack_pairs(config: PairsConfig, cache: Path) -> bytes:
    """A zip of {train,val}/{scan,clean} with the pairs as they are split here: opened elsewhere, they are the same."""
    files = {
        part: match_names(*find_sides(folder, config.scan_dir, config.clean_dir))
        for part, folder in find_parts(config.dir).items()
    }
    settings = config.scan_dir, config.clean_dir
    train, val, _ = divided(files, config.val_fraction, 0, config.dir, cache, settings)
    parcel = io.BytesIO()
    # Images are compressed already.
    with zipfile.ZipFile(parcel, "w", zipfile.ZIP_STORED) as archive:
        for part, pairs in (("train", train), ("val", val)):
            for name, sides in pairs.items():
                for side, path in zip(("scan", "clean"), sides, strict=True):
                    archive.write(path, f"{part}/{side}/{name}{path.suffix}")
    return parcel.getvalue()
