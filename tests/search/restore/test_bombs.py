"""Small files that promise huge pictures: one line that names the file and its size, in every command."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.files import DataError, decode_image, read_header
from models import ClassicalConfig
from models.filters import Unchanged
from tests.search.restore.test_files import export

LIMIT = 12 * 2**30
"""Bytes of address space: libraries take the most of it, and 2.5 billion pixels would not fit."""
CODE = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({LIMIT}, {LIMIT}))
from search.__main__ import main
pairs, model, out = sys.argv[1:]
for command in (
    ["check", pairs, "--jobs", "1"],
    ["run", "--study", "classical", "--data", pairs, "--out", out + "/runs", "--budget", "2s"],
    ["restore", model, pairs + "/scan", "-o", out + "/restored"],
    ["evaluate", model, "--data", pairs, "-o", out + "/scores"],
):
    print("code", main(command), flush=True)
    print("ended", command[0], file=sys.stderr, flush=True)
"""


def bomb(extension: str) -> bytes:
    """A file of 50,000 x 50,000 pixels, or of as many as WebP can have."""
    data = zlib.compress(bytes(10**6))
    if extension == ".png":
        head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
        parts = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in parts
        )
    if extension == ".tif":
        tags = (
            (256, 50_000),
            (257, 50_000),
            (258, 8),
            (259, 8),
            (262, 1),
            (273, 122),
            (277, 1),
            (278, 50_000),
        )
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (279, len(data))))
        return b"II*\0\x08\0\0\0\x09\0" + entries + bytes(4) + data
    # An empty picture, with the largest width and height in place of its own.
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "WEBP", lossless=True)
    file = bytearray(buffer.getvalue())
    assert file[12:16] == b"VP8L"
    bits = int.from_bytes(file[21:25], "little")
    file[21:25] = ((bits & ~0xFFFFFFF) | 16_382 | 16_382 << 14).to_bytes(4, "little")
    return bytes(file)


@pytest.mark.parametrize(
    ("extension", "size"), [(".png", "50000 x 50000"), (".tif", "50000 x 50000"), (".webp", "16383 x 16383")]
)
def test_bomb_is_refused_by_its_header(tmp_path: Path, extension: str, size: str) -> None:
    path = tmp_path / f"bomb{extension}"
    path.write_bytes(bomb(extension))
    assert path.stat().st_size < 2000
    for read in (read_header, decode_image):
        with pytest.raises(DataError, match=rf"bomb\{extension}: {size} pixels in a file of [\d,]+ bytes"):
            read(path)


def test_every_command_ends_with_a_line_that_names_the_bomb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for side in ("scan", "clean"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for number in range(8):
            page = Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8))
            page.save(tmp_path / "pairs" / side / f"{number}.png")
        for extension in (".png", ".tif", ".webp"):
            (tmp_path / "pairs" / side / f"bomb{extension[1:]}{extension}").write_bytes(bomb(extension))
    model = export(tmp_path / "model", ClassicalConfig(filter=Unchanged()))
    done = subprocess.run(
        [sys.executable, "-c", CODE, tmp_path / "pairs", model, tmp_path],
        capture_output=True, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == [
        "code 1",
        "code 2",
        "code 1",
        "code 2",
    ]
    for said in (done.stdout + done.stderr).split("ended")[:1]:
        assert "50000 x 50000 pixels" in said
    assert done.stderr.count("50000 x 50000 pixels in a file of") == 2  # of `run` and of `evaluate`
    for extension in (".png", ".tif", ".webp"):
        assert f"bomb{extension[1:]}{extension}: " in done.stdout
