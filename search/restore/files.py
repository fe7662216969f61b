"""The command `restore`: files in, restored files out."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data.files import (
    FORMATS,
    FULL_WHITE,
    SEVERAL_PAGES,
    DataError,
    Page,
    left_out,
    open_document,
    open_writer,
    stretched,
    unstretched,
    white_of,
)
from search.errors import UserError
from search.export import load_exported
from search.inference import is_lack_of_memory
from search.restore.jobs import Job, find_jobs, printable
from search.restore.restorer import Restorer, RestorerOptions, Trace, white_of_file
from search.terminal import PLAIN_EVERY_S, Terminal
from search.text import clock

EXTENSIONS = {"png": ".png", "tiff": ".tif", "jpg": ".jpg"}


@dataclass(frozen=True)
class RestoreOptions:
    """Settings of `restore`: the model, the input files, the output folder."""

    model: Path
    inputs: Sequence[str]
    out: Path
    how: RestorerOptions
    overwrite: bool = False
    suffix: str = ""
    format: str | None = None
    """png, tiff or jpg; None: that of the input."""
    pdf_dpi: float = 300.0
    quiet: bool = False


@dataclass
class Summary:
    """Results of a run of `restore`, counted over its files."""

    restored: int = 0
    kept: int = 0
    """Results that were there already."""
    failures: list[str] = field(default_factory=list)
    megapixels: float = 0.0
    notes: Counter[str] = field(default_factory=Counter)
    """The number of pages for each remark."""
    tiled: list[Trace] = field(default_factory=list)
    stopped: bool = False


def restore_files(options: RestoreOptions) -> Summary:
    """Restore all inputs, one after the other. A file that fails is named and does not stop the others.

    Faults in the arguments raise `UserError` before any work. Ctrl-C ends it between two files: those that are
    written are whole, and the same command goes on.
    """
    if any(sign in options.suffix for sign in "/\\\0"):
        raise UserError(f"--suffix {options.suffix}: part of a file name, so without / and \\")
    todo, others = find_jobs(
        options.inputs, options.out, options.suffix, EXTENSIONS.get(options.format or "")
    )
    restorer = Restorer(load_exported(options.model), options.how)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{printable(options.out)}: cannot be made: {error.strerror}; -o names a folder"
        ) from None
    console = Terminal(quiet=options.quiet, highlight=False)
    summary, started = Summary(), time.monotonic()
    with _Display(console, todo, options.pdf_dpi) as display:
        try:
            for job in todo:
                display.start(job)
                try:
                    _restore_job(job, restorer, options, display, summary)
                except (DataError, OSError, UserError) as error:
                    _failed(job, _reason(error), display, summary)
                except Exception as error:
                    lack = is_lack_of_memory(error)
                    reason = "not enough memory; see --memory" if lack else f"{type(error).__name__}: {error}"
                    _failed(job, reason, display, summary)
                display.finish()
        except KeyboardInterrupt:
            summary.stopped = True
    _print_summary(console, summary, restorer, options, time.monotonic() - started)
    if advice := left_out(others, documents=True):
        console.print(advice, markup=False, emoji=False, soft_wrap=True)
    return summary


def _restore_job(
    job: Job, restorer: Restorer, options: RestoreOptions, display: "_Display", summary: Summary
) -> None:
    target = job.target
    if target.exists() and not options.overwrite:
        summary.kept += 1
        return
    with open_document(job.source, options.pdf_dpi) as document, ExitStack() as files:
        together = document.pages == 1 or FORMATS[target.suffix.lower()] in SEVERAL_PAGES
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = files.enter_context(open_writer(target)) if together else None
        for number in range(document.pages):
            page = document.read(number)
            name = target if together else target.with_name(f"{target.stem}-{number + 1:03}{target.suffix}")
            if not together and name.exists() and not options.overwrite:
                summary.kept += 1
                continue
            channels = page.pixels.shape[2]
            white = white_of_file(page.pixels, restorer.white_level)
            pixels, trace = restorer.restore(stretched(page.pixels, white), display.advance)
            page = replace(page, pixels=pixels if white == FULL_WHITE else unstretched(pixels, white))
            summary.notes.update(_about_white(page, white))
            if writer is not None:
                lost = writer.add(page)
            else:
                with open_writer(name) as single:
                    lost = single.add(page)
            summary.notes.update([*page.notes, *lost])
            summary.notes.update(_adapted(restorer.channels, channels))
            summary.megapixels += pixels.shape[0] * pixels.shape[1] / 1e6
            if trace.tile is not None:
                summary.tiled.append(trace)
    summary.restored += 1


def _adapted(model: int, image: int) -> list[str]:
    if model == image:
        return []
    if model == 1:
        return ["the model is for gray images: red, green and blue were restored one by one"]
    return ["the model is for colour images: gray went in as red, green and blue, their mean came out"]


def _about_white(page: Page, white: int) -> list[str]:
    """What there is to say of a 16-bit page whose values use a part of their range."""
    if white < FULL_WHITE:
        return [f"{white} of 65535 was taken as white, as in the images that the model was trained with"]
    if page.stored_bits == 16 and white_of(int(page.pixels.max())) < FULL_WHITE // 8:
        return [
            "16 bits whose values are nearly black: values of fewer bits, perhaps, which the model does not know"
        ]
    return []


def _failed(job: Job, reason: str, display: "_Display", summary: Summary) -> None:
    text = printable(" ".join(reason.split()))
    name = printable(job.source)
    line = text if text.startswith(name) else f"{name}: {text}"
    summary.failures.append(line)
    display.console.print(f"failed: {line}", markup=False, emoji=False, soft_wrap=True)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'file'}: {error.strerror or error}"
    return str(error)


def _print_summary(
    console: Console, summary: Summary, restorer: Restorer, options: RestoreOptions, seconds: float
) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, emoji=False, soft_wrap=True)

    if summary.restored:
        rate = summary.megapixels / max(seconds, 1e-9)
        say(
            f"{printable(options.out)}: {summary.restored} restored, {summary.megapixels:.1f} megapixels in "
            f"{clock(seconds)} ({rate:.2f} per second)"
        )
    if summary.tiled:
        worst = max(summary.tiled, key=lambda trace: trace.difference)
        twice = sum(trace.passes > 1 for trace in summary.tiled)
        say(
            f"{len(summary.tiled)} in tiles, {worst.tile} pixels and {worst.margin} around; from the image as a whole "
            f"they differ by about {255 * worst.difference:.2f} of 255 at most"
            + (f"; {twice} took more than one pass" if twice else "")
        )
    if restorer.note:
        say(restorer.note)
    for note, count in summary.notes.items():
        say(f"{count} {'page' if count == 1 else 'pages'}: {note}")
    if summary.kept:
        say(f"{summary.kept} kept as they were, from an earlier run (--overwrite writes them anew)")
    if summary.failures:
        say(f"{len(summary.failures)} failed, named above")
    if summary.stopped:
        say("stopped; files that were finished are whole, and the same command goes on")


class _Display:
    """A bar over all pixels on a terminal; a line now and then elsewhere."""

    def __init__(self, console: Console, todo: Sequence[Job], pdf_dpi: float) -> None:
        self.console, self.pdf_dpi = console, pdf_dpi
        self.sizes = {job.source: _pixels(job.source, pdf_dpi) for job in todo}
        self.total = max(sum(self.sizes.values()), 1)
        self.done = self.expected = self.now = 0
        self.last_line = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=self.total)

    def __enter__(self) -> "_Display":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def start(self, job: Job) -> None:
        self.expected, self.now = self.sizes[job.source], 0
        self.bar.update(self.task, description=printable(job.source.name)[:40])

    def advance(self, pixels: int) -> None:
        self.now += pixels
        self._show(self.done + min(self.now, self.expected))

    def finish(self) -> None:
        """Called after each file, restored or failed."""
        self.done += self.expected
        self._show(self.done)

    def _show(self, pixels: int) -> None:
        self.bar.update(self.task, completed=pixels)
        if self.bar.disable and time.monotonic() - self.last_line > PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            self.console.print(f"  {100 * pixels / self.total:.0f} % of {self.total / 1e6:.1f} megapixels")


def _pixels(path: Path, pdf_dpi: float) -> int:
    """The number of pixels by a file's header; 0 if it cannot be read, which is reported when it is restored."""
    try:
        with open_document(path, pdf_dpi) as document:
            height, width = document.size
            return document.pages * height * width
    except (DataError, OSError):
        return 0
