"""Decoded images: each file is read once, into memory or, where they do not fit, into one mapped file."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from data.files import (
    FULL_WHITE,
    DataError,
    Header,
    Pixels,
    decode_image,
    read_header,
    some_names,
    stretched,
    warn_of_changes,
    white_of,
    with_bits,
    with_channels,
)
from data.sources.split import cache_folder, place_key, write_whole

RAM_SHARE = 0.25
"""Decoded images stay in memory up to this share of what is free there; larger sets are mapped from disk."""

_THREADS = min(8, os.cpu_count() or 1)

T = TypeVar("T")


def read_headers(paths: Sequence[Path]) -> list[Header]:
    """The headers of all files, in order. Raises one DataError that names the files that have none."""
    return each_file(read_header, paths)


def white_level(paths: Sequence[Path], headers: Sequence[Header]) -> int:
    """The value of white in the 16-bit files among these: less than 65535 if none goes beyond that of fewer bits.

    Cameras and scanners write values of 10, 12 or 14 bits into files of 16; taken as they are, they are nearly
    black. Reads files until one is beyond them, which mostly is the first.
    """
    largest, deep = 0, [path for path, header in zip(paths, headers, strict=True) if header.stored_bits == 16]
    for path in deep:
        with suppress(DataError):  # told by `load_pixels`, of all files together
            largest = max(largest, int(decode_image(path).max()))
        if white_of(largest) == FULL_WHITE:
            break
    return white_of(largest) if deep and largest else FULL_WHITE


def load_pixels(
    paths: Sequence[Path], headers: Sequence[Header], channels: int, cache: Path, white: int = FULL_WHITE
) -> tuple[list[Pixels], str]:
    """All images as (channels, H, W) arrays of one type, and 16 hex digits that depend on every pixel.

    uint16 if any file has 16 bits, else uint8. `white` is the value of white in files that store 16 bits.
    The arrays are read-only views of one block, in memory or mapped from `cache`/data; a mapped block is
    kept there and found again while the files are unchanged. Warns once if any file holds more than plain
    pixels.
    """
    warn_of_changes(dict(zip(paths, headers, strict=True)))
    bits = max(header.bits for header in headers)
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    shapes = [(channels, header.height, header.width) for header in headers]
    partial = {
        path
        for path, header in zip(paths, headers, strict=True)
        if header.stored_bits == 16 and white < FULL_WHITE
    }
    ends = np.cumsum([channels * header.height * header.width for header in headers])
    total = int(ends[-1])

    def views(block: Pixels) -> list[Pixels]:
        return [part.reshape(shape) for part, shape in zip(np.split(block, ends[:-1]), shapes, strict=True)]

    def fill(block: Pixels) -> str:
        places = dict(zip(paths, views(block), strict=True))

        def decode_into_place(path: Path) -> bytes:
            decoded = decode_image(path)
            if path in partial:
                decoded = stretched(decoded, white)
            pixels = with_bits(with_channels(decoded, channels), bits).transpose(2, 0, 1)
            place = places[path]
            if pixels.shape != place.shape:
                raise DataError(f"{path}: changed while it was being read")
            place[...] = pixels
            return hashlib.blake2b(place.data, digest_size=16).digest()

        return hashlib.sha256(b"".join(each_file(decode_into_place, paths))).hexdigest()[:16]

    if total * dtype.itemsize <= RAM_SHARE * psutil.virtual_memory().available:
        block: Pixels = np.empty(total, dtype)
        digest = fill(block)
        block.flags.writeable = False
    else:
        block, digest = _mapped(paths, (channels, white), dtype, total, cache, fill)
    return views(block), digest


def pixel_kind(pixels: Sequence[Pixels], white: int = FULL_WHITE) -> str:
    """Kind of the pixels that `load_pixels` returned, for people: "gray 8 bit"."""
    kind = f"{'gray' if pixels[0].shape[0] == 1 else 'colour'} {8 * pixels[0].itemsize} bit"
    return (
        kind if white == FULL_WHITE else f"{kind} with values of {white.bit_length()} bit ({white} is white)"
    )


def _mapped(
    paths: Sequence[Path],
    how: tuple[int, int],
    dtype: np.dtype[Any],
    total: int,
    cache: Path,
    fill: Callable[[Pixels], str],
) -> tuple[Pixels, str]:
    """The block as a read-only memory map of `cache`/data/pixels-KEY.raw, made first if need be.

    `how` is what pixels depend on besides their files: channels and white.
    """
    stamps = [(path.resolve(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    raw = cache_folder(cache) / f"pixels-{place_key(*how, dtype, *stamps)}.raw"
    index = raw.with_suffix(".json")
    digest = _kept_digest(raw, index, total * dtype.itemsize)
    if digest is None:
        need, free = total * dtype.itemsize, shutil.disk_usage(raw.parent).free
        # Writing to a map on a full disk kills the process, so the room is checked first.
        if need > free:
            raise DataError(
                f"{raw.parent}: the decoded images need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                "choose another place with --out"
            )
        temporary = raw.with_name(f".{raw.name}.{os.getpid()}")
        try:
            block = np.memmap(temporary, dtype, "w+", shape=(total,))
            digest = fill(block)
            block.flush()
            del block
            temporary.replace(raw)
        except OSError as error:
            raise DataError(f"{raw}: cannot be written ({error.strerror})") from error
        finally:
            temporary.unlink(missing_ok=True)
        # Last, because its presence says that the pixels are whole.
        write_whole(index, json.dumps({"digest": digest, "first": str(paths[0]), "files": len(paths)}))
    # As a plain array, because every slice of a np.memmap costs microseconds of bookkeeping.
    return np.asarray(np.memmap(raw, dtype, "r", shape=(total,))), digest


def _kept_digest(raw: Path, index: Path, size: int) -> str | None:
    """The digest of a block that is whole, as its index says and its size in bytes confirms; else None."""
    try:
        digest = json.loads(index.read_text("utf-8"))["digest"]
        return str(digest) if raw.stat().st_size == size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def each_file(work: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    """`work` on every path, a few at a time. Raises one DataError that speaks for all that failed."""

    def attempt(path: Path) -> T | DataError:
        try:
            return work(path)
        except DataError as error:
            return error

    # Filters are shared by all threads, so they are set outside of them. What Pillow warns about odd files
    # is either harmless or ends as DataError.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(attempt, paths))
    failed = {
        path: result for path, result in zip(paths, results, strict=True) if isinstance(result, DataError)
    }
    if failed:
        more = (
            f"\n{len(failed)} files cannot be read: {some_names(map(str, failed))}" if len(failed) > 1 else ""
        )
        raise DataError(f"{next(iter(failed.values()))}{more}")
    return [result for result in results if not isinstance(result, DataError)]
