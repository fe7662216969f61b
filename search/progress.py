"""What a person sees while a search runs: two live lines on a terminal, plain lines elsewhere, or nothing."""

import time
from typing import Literal, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_S = 15.0  # without a terminal: at most one line about a running trial in this time
REFRESH_PER_S = 4


class Number(Protocol):
    """A value that may still be on a device: read only when it is shown."""

    def __float__(self) -> float: ...


class Progress:
    """The display of one `run`. `quiet` shows nothing; use as a context manager."""

    def __init__(self, study: str, input_psnr_db: float, trials: int, deadline: float, quiet: bool) -> None:
        self.study, self.input_psnr_db, self.trials, self.deadline = study, input_psnr_db, trials, deadline
        self.console = Console(quiet=quiet, highlight=False)
        self.mode: Literal["live", "plain"] = "live" if self.console.is_terminal else "plain"
        self.counts = {"done": 0, "pruned": 0, "failed": 0}
        self.best: tuple[float, str] | None = None
        self.label = ""
        self.step, self.steps, self.psnr_db = 0, 1, float("nan")
        self.loss: Number = float("nan")
        self.trial_started = self.last_line = time.monotonic()
        self.first_step = 0
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

    def start(self, label: str, step: int, steps: int) -> None:
        """A trial begins, or goes on at `step`."""
        self.label, self.step, self.steps = label, step, steps
        self.first_step = step
        self.loss, self.psnr_db = float("nan"), float("nan")
        self.trial_started = self.last_line = time.monotonic()

    def stepped(self, step: int, steps: int, loss: Number) -> None:
        self.step, self.steps, self.loss = step, steps, loss

    def scored(self, psnr_db: float) -> None:
        self.psnr_db = psnr_db
        if self.mode == "plain" and time.monotonic() - self.last_line > PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            self.say(f"  {self._trial_text()}")

    def count(self, kind: Literal["done", "pruned", "failed"]) -> None:
        self.counts[kind] += 1

    def offer(self, psnr_db: float, name: str) -> None:
        """Show this score as the best if it is."""
        if self.best is None or psnr_db > self.best[0]:
            self.best = (psnr_db, name)

    def _speed(self) -> float:
        return (self.step - self.first_step) / max(time.monotonic() - self.trial_started, 1e-9)

    def _trial_text(self) -> str:
        psnr = "  no score yet" if self.psnr_db != self.psnr_db else f"  {self.psnr_db:.2f} dB"
        if self.step == self.steps:
            return f"{self.label}  scoring whole images{psnr}"
        return (
            f"{self.label}  step {self.step}/{self.steps}  loss {float(self.loss):.4f}{psnr}"
            f"  {self._speed():.1f} steps/s"
        )

    def _render(self) -> RenderableType:
        best = "no score yet"
        if self.best:
            psnr_db, name = self.best
            best = f"best {psnr_db:.2f} dB ({psnr_db - self.input_psnr_db:+.2f} over the input, {name})"
        counts = " · ".join(f"{number} {kind}" for kind, number in self.counts.items() if number)
        left = max(self.deadline - time.time(), 0)
        head = Text.assemble(
            (self.study, "bold"), "  ", (best, "green"), "  ", counts, f"  {clock(left)} left"
        )
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=self.steps, completed=self.step, width=24), self._trial_text())
        return Group(head, row)


def clock(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
