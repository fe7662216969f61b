"""The files of a folder of pairs as one parcel, to be taken along to other machines."""

import io
import zipfile
from pathlib import Path

from data.sources.pairs import PairsConfig


def pack_pairs(config: PairsConfig, cache: Path) -> bytes:
    """A zip of {train,val}/{scan,clean} with the pairs as they are split here: opened elsewhere, they are the same."""
    train, val, _, _ = config.files(seed=0, cache=cache)
    parcel = io.BytesIO()
    # Images are compressed already.
    with zipfile.ZipFile(parcel, "w", zipfile.ZIP_STORED) as archive:
        for part, pairs in (("train", train), ("val", val)):
            for name, sides in pairs.items():
                for side, path in zip(("scan", "clean"), sides, strict=True):
                    archive.write(path, f"{part}/{side}/{name}{path.suffix}")
    return parcel.getvalue()
