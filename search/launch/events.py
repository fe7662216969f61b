"""Events that a worker sends to the `run` that started it, for display: one line of JSON each."""

import json
import time
from typing import IO, Any

from search.terminal import Kind, Number, Progress

STEPS_EVERY_S = 0.25  # a display that changes more often cannot be read


class EventStream:
    """Writes events of a worker to `stream`; the process at the other end displays them with `show_event`.

    Once the other end is closed, nothing more is written.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream: IO[str] | None = stream
        self.last_step = 0.0

    def say(self, text: str) -> None:
        self._send("say", text=text)

    def start(self, label: str, step: int, steps: int) -> None:
        self._send("start", label=label, step=step, steps=steps)

    def stepped(self, step: int, steps: int, loss: Number) -> None:
        now = time.monotonic()
        if now - self.last_step > STEPS_EVERY_S or step == steps:
            self.last_step = now
            self._send("stepped", step=step, steps=steps, loss=float(loss))

    def scored(self, psnr_db: float) -> None:
        self._send("scored", psnr_db=psnr_db)

    def ended(self, kind: Kind, value: float | None, number: int) -> None:
        self._send("ended", kind=kind, value=value, number=number)

    def _send(self, what: str, **values: Any) -> None:
        if self.stream is None:
            return
        try:
            self.stream.write(json.dumps([what, values]) + "\n")
            self.stream.flush()
        except (BrokenPipeError, ValueError):
            self.stream = None


def show_event(line: str, progress: Progress, worker: str) -> None:
    """Display an event that `worker` has sent."""
    what, values = json.loads(line)
    row = {} if what in ("say", "ended") else {"worker": worker}
    getattr(progress, what)(**values, **row)
