"""Parcels of pairs on a cluster: nothing of them, and nothing that is asked for, lies outside its folder."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from search.launch.ray_actor import WorkerActor, is_inside


def parcel(*names: str, content: bytes = b"x", mode: int = 0, compression: int = zipfile.ZIP_STORED) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", compression) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, compression
            archive.writestr(entry, content)
    return found.getvalue()


@pytest.mark.parametrize(
    "name", ["../out.png", "train/../../out.png", "/tmp/out.png", "a\\..\\..\\out.png", "dir/"]
)
def test_parcel_that_leads_outside_is_refused_whole(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file of pairs"):
        WorkerActor().unpack_pairs(parcel("train/scan/0.png", name), str(tmp_path / "in" / "pairs"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_link_in_a_parcel_is_refused(tmp_path: Path) -> None:
    linked = parcel("train/scan", content=b"/etc", mode=stat.S_IFLNK | 0o777)
    with pytest.raises(ValueError, match="is not a file of pairs"):
        WorkerActor().unpack_pairs(linked, str(tmp_path / "pairs"))
    assert list(tmp_path.iterdir()) == []


def test_parcel_that_would_grow_is_refused(tmp_path: Path) -> None:
    bomb = parcel("train/scan/0.png", content=b"\0" * 10**7, compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5
    with pytest.raises(ValueError, match="is compressed"):
        WorkerActor().unpack_pairs(bomb, str(tmp_path / "pairs"))


def test_only_files_of_the_folder_are_fetched(tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "runs" / "tiny" / "best").write_bytes(b"weights")
    (tmp_path / "runs" / "link").symlink_to(tmp_path)
    names = ["tiny/best", "../secret", str(tmp_path / "secret"), "link/secret", "tiny/../../secret"]
    assert WorkerActor().fetch(str(tmp_path / "runs"), names) == {"tiny/best": b"weights"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "/", "a\0b"])
def test_folder_itself_is_not_inside(name: str, tmp_path: Path) -> None:
    assert not is_inside(tmp_path, name)
