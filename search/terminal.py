"""What a person sees while a search runs: two live lines on a terminal, plain lines elsewhere, or nothing."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TextIO, cast

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from search.text import clock, printable

PLAIN_EVERY_S = 15.0  # without a terminal: at most one line about a running trial in this time
REFRESH_PER_S = 4
Kind = Literal["done", "pruned", "failed"]


class Terminal(Console):
    """A console that never passes on signs by which a name or a file name could steer it."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


class PrintableStream:
    """What `print` writes to, in the place of `raw`: the same, without signs that steer a terminal."""

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw
        self.rich_proxied_file = raw  # rich, which does steer, writes to this one

    def write(self, text: str) -> int:
        self.raw.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def printable_output() -> Iterator[None]:
    """While it lasts, whatever is printed is fit for a terminal, wherever its names come from."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, PrintableStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class Number(Protocol):
    """A value that may still be on a device: read only when it is shown."""

    def __float__(self) -> float: ...


class Shows(Protocol):
    """Whoever is told what one worker does."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def start(self, label: str, step: int, steps: int) -> None:
        """A trial begins, or goes on at `step`."""

    def stepped(self, step: int, steps: int, loss: Number) -> None:
        """It has taken a step."""

    def scored(self, psnr_db: float) -> None:
        """It has been scored on the way."""

    def ended(self, kind: Kind, value: float | None, number: int) -> None:
        """It has come to its end."""


@dataclass
class Row:
    """What one worker is at: a trial, and how far it is."""

    label: str
    step: int
    steps: int

    def __post_init__(self) -> None:
        self.psnr_db = float("nan")
        self.loss: Number = float("nan")
        self.first_step = self.step
        self.trial_started = self.last_line = time.monotonic()

    def text(self) -> str:
        psnr = "  no score yet" if self.psnr_db != self.psnr_db else f"  {self.psnr_db:.2f} dB"
        if self.step == self.steps:
            return f"{self.label}  scoring whole images{psnr}"
        speed = (self.step - self.first_step) / max(time.monotonic() - self.trial_started, 1e-9)
        return f"{self.label}  step {self.step}/{self.steps}  loss {float(self.loss):.4f}{psnr}  {speed:.1f} steps/s"


class Progress:
    """The display of one `run`, until `deadline` of the monotonic clock. Use as a context manager.

    `quiet` shows nothing. Several workers have a row each, by name.
    """

    def __init__(self, study: str, input_psnr_db: float, trials: int, deadline: float, quiet: bool) -> None:
        self.study, self.input_psnr_db, self.trials, self.deadline = study, input_psnr_db, trials, deadline
        self.console = Terminal(quiet=quiet, highlight=False)
        self.mode: Literal["live", "plain"] = "live" if self.console.is_terminal else "plain"
        self.counts: dict[Kind, int] = {"done": 0, "pruned": 0, "failed": 0}
        self.best: tuple[float, str] | None = None
        self.rows: dict[str, Row] = {}
        self.live = Live(
            get_renderable=self._render,
            console=self.console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )

    def __enter__(self) -> "Progress":
        if self.mode == "live" and not self.console.quiet:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live.is_started:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def start(self, label: str, step: int, steps: int, worker: str = "") -> None:
        """A trial begins, or goes on at `step`."""
        self.rows[worker] = Row(label, step, steps)

    def stepped(self, step: int, steps: int, loss: Number, worker: str = "") -> None:
        row = self.rows[worker]
        row.step, row.steps, row.loss = step, steps, loss

    def scored(self, psnr_db: float, worker: str = "") -> None:
        row = self.rows[worker]
        row.psnr_db = psnr_db
        if self.mode == "plain" and time.monotonic() - row.last_line > PLAIN_EVERY_S:
            row.last_line = time.monotonic()
            self.say(f"  {row.text()}")

    def ended(self, kind: Kind, value: float | None, number: int) -> None:
        """A trial has ended: count it, and show its score as the best if it is."""
        self.counts[kind] += 1
        if value is not None and (self.best is None or value > self.best[0]):
            self.best = (value, f"trial {number}")

    def worker_ended(self, worker: str) -> None:
        """A worker has ended; its row goes with it."""
        self.rows.pop(worker, None)

    def _render(self) -> RenderableType:
        best = "no score yet"
        if self.best:
            psnr_db, name = self.best
            best = f"best {psnr_db:.2f} dB ({psnr_db - self.input_psnr_db:+.2f} over the input, {name})"
        counts = " · ".join(f"{number} {kind}" for kind, number in self.counts.items() if number)
        left = max(self.deadline - time.monotonic(), 0)
        head = Text.assemble(
            (self.study, "bold"), "  ", (best, "green"), "  ", counts, f"  {clock(left)} left"
        )
        table = Table.grid(padding=(0, 1))
        for _, row in sorted(self.rows.items()):
            table.add_row(ProgressBar(total=row.steps, completed=row.step, width=24), row.text())
        return Group(head, table)
