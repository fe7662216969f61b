"""The pair doctor: every fault planted into a good set is told by name, and the good set is not."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.doctor import Finding, Severity, check, file_checks, repair_pairs
from data.doctor.findings import KINDS, of_the_set, worst_first
from data.doctor.jpeg_blocks import VISIBLE, jpeg_trace
from data.files import DataError, Pixels, decode_image, jpeg_round_trip, write_png
from data.likeness.near_duplicates import NEARLY, descriptors, merge_groups, near_duplicate_groups
from data.likeness.registration import measure_shift
from tests.data.examples import HEIGHT, WIDTH, scene, write_scenes

TRAIN, VAL = 8, 4


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "set" / "train", [f"t{n}" for n in range(TRAIN)], seed=1)
    write_scenes(tmp_path / "set" / "val", [f"v{n}" for n in range(VAL)], seed=2)
    return tmp_path / "set"


def told(folder: Path) -> list[Finding]:
    return check.check_pairs(folder, jobs=1).findings


def warned(folder: Path) -> list[Finding]:
    return [finding for finding in told(folder) if finding.severity > Severity.NOTE]


def change(path: Path, how: Callable[[Pixels], Pixels]) -> None:
    write_png(path, np.ascontiguousarray(how(decode_image(path))))


def shifted(image: Pixels, dx: float, dy: float) -> Pixels:
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return np.asarray(
        cv2.warpAffine(
            image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
    )


def test_nothing_is_told_of_a_good_set(pairs: Path) -> None:
    assert told(pairs) == []
    assert check.check_quickly(pairs) == []


def noise(shape: tuple[int, ...], sigma: float) -> np.ndarray:
    return np.random.default_rng(7).normal(0, sigma, shape)


CHANGES: dict[str, tuple[str, Callable[[Pixels], Pixels]]] = {
    "size": ("scan", lambda x: x[:-3]),
    "turned": ("clean", lambda x: np.rot90(x)),
    "inverted": ("scan", lambda x: 255 - x),
    "channel-order": ("scan", lambda x: x[..., ::-1]),
    "constant": ("clean", lambda x: np.full_like(x, 255)),
    "missing-part": ("scan", lambda x: np.concatenate([x[:60], np.full_like(x[60:], 128)])),
    "depth-lost": ("scan", lambda x: x.astype(np.uint16)),
    "bit-depth": ("scan", lambda x: x.astype(np.uint16) * 257),
    "channels": ("clean", lambda x: x[..., :1]),
    "brightness": ("scan", lambda x: np.minimum(x, 200) + np.uint8(50)),
    "colour": ("scan", lambda x: np.minimum(x, 225) + np.array([30, 0, 0], np.uint8)),
    "clipped": ("scan", lambda x: (x * 2.6).clip(0, 255).astype(np.uint8)),
    "noisy-clean": ("clean", lambda x: (x + noise(x.shape, 20)).clip(0, 255).astype(np.uint8)),
    "blurred-clean": ("clean", lambda x: np.asarray(cv2.GaussianBlur(x, (0, 0), 3.0))),
    "jpeg-clean": ("clean", lambda x: jpeg_round_trip(x, 80)),
    "shift": ("scan", lambda x: shifted(x, 0.6, 0.4)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_changed_side_is_told(pairs: Path, kind: str) -> None:
    side, how = CHANGES[kind]
    change(pairs / "train" / side / "t3.png", how)
    found = warned(pairs)
    assert kind in {finding.kind for finding in found}
    assert {key for finding in found for key in finding.pairs} == {"train/t3"}, "nobody touched the others"


def test_files_that_do_not_decode_are_told_apart(pairs: Path) -> None:
    scan = pairs / "train" / "scan"
    (scan / "t0.png").write_bytes(b"")
    (scan / "t1.png").write_bytes((scan / "t1.png").read_bytes()[:3000])
    (scan / "t2.png").write_bytes(b"<!doctype html>")
    (scan / "t3.png").unlink()
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.int32)).save(scan / "t3.tif")
    (scan / "t4.png").unlink()
    Image.fromarray(decode_image(scan / "t5.png")).save(scan / "t5.bmp")
    assert [(finding.kind, finding.files[0].stem) for finding in told(pairs)] == [
        ("missing-mate", "t4"),
        ("same-name", "t5"),
        ("empty", "t0"),
        ("unreadable", "t2"),
        ("truncated", "t1"),
        ("unsupported", "t3"),
    ]


def test_names_that_tell_the_side_are_offered(pairs: Path) -> None:
    for side in ("scan", "clean"):
        path = pairs / "train" / side / "t3.png"
        path.rename(path.with_name(f"t3_{side}.png"))
    found = {finding.files[0].name: finding.found for finding in told(pairs)}
    assert found["t3_scan.png"].endswith("t3_clean perhaps?")
    assert found["t3_clean.png"].endswith("t3_scan perhaps?")


def test_exif_of_one_side_is_told_by_what_it_does(pairs: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = pairs / "train" / "scan" / "t3.png"
    upright = decode_image(path)
    Image.fromarray(upright).save(path, exif=exif)
    assert [(f.kind, f.severity) for f in warned(pairs)] == [("exif", Severity.ERROR)]
    Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    assert [(f.kind, f.severity) for f in warned(pairs)] == [("exif", Severity.WARNING)]


def test_exchanged_partners_are_told_with_the_one_that_fits(pairs: Path) -> None:
    clean = pairs / "train" / "clean"
    ours, theirs = (decode_image(clean / f"t{n}.png") for n in (3, 4))
    write_png(clean / "t3.png", theirs)
    write_png(clean / "t4.png", ours)
    found = {f.pairs[0]: f.found for f in told(pairs) if f.kind == "wrong-partner"}
    assert found.keys() == {"train/t3", "train/t4"}
    assert found["train/t3"].endswith("the clean side of train/t4 fits better")


@pytest.mark.parametrize("which", ["one pair", "all pairs"])
def test_swapped_sides_are_told(pairs: Path, which: str) -> None:
    names = ["train/{}/t3.png"] if which == "one pair" else [f"train/{{}}/t{n}.png" for n in range(TRAIN)]
    if which == "all pairs":
        names += [f"val/{{}}/v{n}.png" for n in range(VAL)]
    for name in names:
        scan, clean = (pairs / name.format(side) for side in ("scan", "clean"))
        first, second = scan.read_bytes(), clean.read_bytes()
        scan.write_bytes(second)
        clean.write_bytes(first)
    (finding,) = [f for f in told(pairs) if f.severity == Severity.ERROR]
    assert finding.kind == "swapped"
    assert finding.whole_set == (which == "all pairs")
    assert len(finding.pairs) == len(names)


def test_copies_are_told_by_where_they_lie(pairs: Path) -> None:
    for side in ("scan", "clean"):
        shutil.copy(pairs / "train" / side / "t0.png", pairs / "train" / side / "again.png")
        shutil.copy(pairs / "train" / side / "t1.png", pairs / "val" / side / "leaked.png")
        smaller = cv2.resize(decode_image(pairs / "train" / side / "t2.png"), None, fx=0.8, fy=0.8)
        write_png(pairs / "val" / side / "smaller.png", jpeg_round_trip(np.asarray(smaller), 92))
    shutil.copy(pairs / "train" / "scan" / "t3.png", pairs / "train" / "scan" / "second.png")
    write_png(pairs / "train" / "clean" / "second.png", scene(55))
    found = {f.kind: set(f.pairs) for f in warned(pairs)}
    assert found["duplicate"] == {"train/again", "train/t0"}
    assert found["leak"] == {"train/t1", "val/leaked"}
    assert found["near-leak"] == {"train/t2", "val/smaller"}
    assert found["contradiction"] == {"train/t3", "train/second"}


def test_one_background_under_other_words_is_told_across_the_split(tmp_path: Path) -> None:
    def page(words: int, ground: int) -> Pixels:
        clean = np.full((240, 320, 1), 255, np.uint8)
        rng = np.random.default_rng(words)
        for top in range(20, 230, 24):
            word = "".join(rng.choice(list("aceimnorsuvwxz "), 18))
            cv2.putText(clean, word, (8, top), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0,), 2)
        stain = cv2.GaussianBlur(np.random.default_rng(ground).normal(0, 1, (240, 320)), (0, 0), 9)
        paper = 205 + 260 * stain[..., None]
        return np.concatenate([clean, np.minimum(clean, paper).clip(0, 255).astype(np.uint8)], 2)

    for part, numbers, grounds in (("train", range(8), (1, 2)), ("val", range(8, 13), (3, 3, 3, 3, 2))):
        for place, number in enumerate(numbers):
            both = page(number, grounds[place % len(grounds)])
            for channel, side in enumerate(("clean", "scan")):
                (tmp_path / part / side).mkdir(parents=True, exist_ok=True)
                write_png(tmp_path / part / side / f"p{number}.png", both[..., channel : channel + 1])
    (finding,) = warned(tmp_path)
    assert finding.kind == "shared-background"
    assert set(finding.pairs) == {f"train/p{n}" for n in range(1, 8, 2)} | {"val/p12"}


def test_degradation_that_all_pairs_share_is_no_fault(tmp_path: Path) -> None:
    write_scenes(tmp_path, [f"t{n}" for n in range(11)], seed=1)
    for path in (tmp_path / "scan").iterdir():
        change(path, lambda x: (0.4 * x + np.array([70, 40, 10])).round().clip(0, 255).astype(np.uint8))
    assert told(tmp_path) == []


def test_blurred_or_compressed_sets_are_not_called_swapped(tmp_path: Path) -> None:
    ways: dict[str, Callable[[Pixels], Pixels]] = {
        "slight blur": lambda x: np.asarray(cv2.GaussianBlur(x, (0, 0), 0.6)),
        "blur": lambda x: np.asarray(cv2.GaussianBlur(x, (0, 0), 2.0)),
        "jpeg": lambda x: jpeg_round_trip(x, 30),
    }
    for name, how in ways.items():
        write_scenes(tmp_path / name, [f"t{n}" for n in range(11)], seed=1)
        for path in (tmp_path / name / "clean").iterdir():
            write_png(tmp_path / name / "scan" / path.name, how(decode_image(path)))
        assert told(tmp_path / name) == [], name


def test_fault_of_most_pairs_is_told_once(pairs: Path) -> None:
    for part in ("train", "val"):
        for path in (pairs / part / "clean").iterdir():
            change(path, lambda x: jpeg_round_trip(x, 70))
    (finding,) = told(pairs)
    assert (finding.kind, finding.whole_set, len(finding.pairs)) == ("jpeg-clean", True, TRAIN + VAL)


def test_many_workers_find_what_one_finds(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(pairs / "train" / "scan" / "t3.png", lambda x: 255 - x)
    alone = check.check_pairs(pairs, jobs=1)
    monkeypatch.setattr(check, "ALONE", 0)
    # Threads, because processes take seconds to start.
    monkeypatch.setattr(check, "ProcessPoolExecutor", lambda jobs, context, begin: ThreadPoolExecutor(jobs))
    steps: list[tuple[int, int]] = []
    together = check.check_pairs(pairs, jobs=2, step=lambda done, total: steps.append((done, total)))
    assert together.findings == alone.findings
    assert steps == [(n, TRAIN + VAL) for n in range(1, TRAIN + VAL + 1)]


def test_folder_without_two_sides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    with pytest.raises(DataError, match="no folder named clean"):
        check.check_pairs(tmp_path)


@pytest.mark.parametrize("dx, dy", [(0.0, 0.0), (0.35, -0.2), (-0.7, 0.5), (4.0, -2.0), (6.3, 3.6)])
def test_shift_is_measured_through_noise_within_its_error(dx: float, dy: float) -> None:
    # The true image is known at every place: both views are area means of one that is 10 times as large.
    large = cv2.resize(scene(5, 150, 190), None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)[..., 1]

    def view(left: float, top: float) -> np.ndarray:
        part = large[round(top * 10) :][:1230, round(left * 10) :][:, :1470]
        return np.asarray(cv2.resize(part, (147, 123), interpolation=cv2.INTER_AREA), np.float32)

    noise = np.random.default_rng(1).normal(0, 6, (123, 147))
    measured = measure_shift(view(10, 10), (0.7 * view(10 - dx, 10 - dy) + noise).astype(np.float32))
    assert np.hypot(measured.dx - dx, measured.dy - dy) < max(4 * measured.error, 0.03)
    assert measured.error < 0.1


def test_noise_is_measured_whatever_the_image_is_like() -> None:
    clean = file_checks.to_gray(scene(3, 201, 255))
    for sigma in (3.0, 9.0):
        noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape).astype(np.float32)
        assert file_checks.noise(noisy) == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("quality", [60, 80, 90, 95])
def test_jpeg_leaves_a_trace_and_its_quality(quality: int) -> None:
    image = scene(9, 160, 160)[..., :1]
    assert jpeg_trace(image[..., 0])[0] < 0.1
    trace, guessed = jpeg_trace(np.ascontiguousarray(jpeg_round_trip(image, quality)[..., 0]))
    assert trace > VISIBLE
    assert abs(guessed - quality) <= 10


def test_groups_are_those_of_comparing_every_two() -> None:
    rng = np.random.default_rng(4)
    groundwork = [cv2.GaussianBlur(rng.normal(0, 1, (64, 64)), (0, 0), 2) for _ in range(9)]
    thumbs = [
        (128 + 400 * groundwork[n % 9] + rng.normal(0, 2, (64, 64))).clip(0, 255).astype(np.uint8)
        for n in range(40)
    ]
    groups = near_duplicate_groups(thumbs)
    rows = descriptors(thumbs)
    for one in range(40):
        for other in range(40):
            assert (groups[one] == groups[other]) == (rows[one] @ rows[other] >= NEARLY)


def test_merged_groups_are_connected_through_any_of_them() -> None:
    first, second = np.array([0, 0, 2, 3, 4]), np.array([0, 1, 1, 3, 3])
    assert merge_groups([first, second]).tolist() == [0, 0, 0, 3, 3]


def test_findings_come_worst_first_and_common_ones_once() -> None:
    found = [Finding("jpeg-clean", "x", pairs=(f"p{n}",)) for n in range(6)] + [
        Finding("size", "y", pairs=("p1",))
    ]
    told = worst_first(of_the_set(found, 10))
    assert [(f.kind, f.whole_set, len(f.pairs)) for f in told] == [
        ("size", False, 1),
        ("jpeg-clean", True, 6),
    ]


def test_every_kind_says_what_to_do() -> None:
    for kind, (_, title, advice) in KINDS.items():
        assert title and advice, kind


def test_images_of_formats_that_are_not_read_are_told_by_both_checks(pairs: Path) -> None:
    for name in ("a.gif", "b.gif", "c.dng", "notes.txt"):
        (pairs / "train" / "scan" / name).write_bytes(b"anything")
    for findings in (told(pairs), check.check_quickly(pairs)):
        (found,) = [finding for finding in findings if finding.kind == "not-read"]
        assert (
            "2 files left out: .gif is not read" in found.found
            and ".dng is not read (camera RAW" in found.found
        )
        assert found.severity == Severity.WARNING
        (other,) = [finding for finding in findings if finding.kind == "ignored"]
        assert other.found == "1 files: notes.txt"


def drawn_page(seed: int) -> Pixels:
    """A white page with sharp bars, some of which end where a block of 8 x 8 pixels does."""
    rng = np.random.default_rng(seed)
    page = np.full((72, 96, 3), 245, np.uint8)
    for _ in range(12):
        top, left = int(rng.integers(0, 66)), int(rng.integers(0, 76))
        page[top : top + 3, left : left + int(rng.integers(5, 20))] = rng.integers(0, 120, 3)
    return page


def gray_trace(page: Pixels) -> float:
    return jpeg_trace(np.asarray(page.mean(2)).round().astype(np.uint8))[0]


def test_drawn_pages_are_no_jpegs() -> None:
    assert [seed for seed in range(60) if gray_trace(drawn_page(seed)) > VISIBLE] == []


@pytest.mark.parametrize("quality", [50, 70, 80, 90, 95])
def test_drawn_pages_that_were_jpegs_are_found(quality: int) -> None:
    traces = [gray_trace(jpeg_round_trip(drawn_page(seed), quality)) for seed in range(20)]
    assert sum(trace > VISIBLE for trace in traces) >= 16


def test_squares_that_fill_their_blocks_are_no_jpegs() -> None:
    squares = np.random.default_rng(0).integers(0, 2, (16, 16)).astype(np.uint8) * 200
    assert jpeg_trace(np.kron(squares, np.ones((8, 8), np.uint8)))[0] == 0


def test_sub_folders_and_related_names_are_checked_and_mended(tmp_path: Path) -> None:
    for book in ("one", "two", "three", "four"):
        write_scenes(tmp_path / book, ["0", "1", "2"], seed=len(book) + 10 * ord(book[1]))
        for side in ("scan", "clean"):
            for path in (tmp_path / book / side).iterdir():
                target = tmp_path / "set" / side / book / f"{path.stem}_{side}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    report = check.check_pairs(tmp_path / "set", jobs=1)
    assert [(finding.kind, finding.severity) for finding in report.findings] == [("names", Severity.NOTE)]
    assert {m.pair.key for m in report.measured} >= {"one/0", "four/2"}
    repair_pairs(report, tmp_path / "mended")
    again = check.check_pairs(tmp_path / "mended", jobs=1)
    parts = {m.pair.name: m.pair.part for m in again.measured}
    assert len(parts) == 12
    assert all(
        len({part for name, part in parts.items() if name.startswith(book)}) == 1
        for book in ("one", "two", "three", "four")
    )
