"""Memory saved and time lost per training step by recomputing blocks in the backward pass.

    python -m tests.benchmarks.recompute --threads 1 --clock cpu

Both sides run in turns within one process; medians. Memory is the highest resident size above that before
the step (Linux).
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from models import KBNetSConfig, NAFNetConfig
from tests.benchmarks.kernel_basis import CLOCKS, ORIGIN, compare, extra_memory, training_step

SMALL = {"encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}
STEPS = (
    (KBNetSConfig, 16, SMALL, 4, 128),
    (KBNetSConfig, 16, ORIGIN, 4, 128),
    (NAFNetConfig, 16, ORIGIN, 4, 128),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default: 1)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: for a busy machine and 1 thread"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(
        f"{'':52s} {'kept ms':>9s} {'again ms':>9s} {'ratio':>7s} {'kept MB':>8s} {'again MB':>9s} {'ratio':>7s}"
    )
    for kind, width, blocks, batch, side in STEPS:
        images = torch.rand(batch, 3, side, side)
        for half in (False, True):
            steps: list[Callable[[], None]] = [
                partial(
                    training_step,
                    kind.model_validate({"width": width, **blocks, "recompute": recompute}).build(),
                    images,
                    half,
                )
                for recompute in (False, True)
            ]
            kept, again = compare(steps[0], steps[1], arguments.repeats, arguments.clock)
            memory = [extra_memory(step) for step in steps]
            name = f"{kind.__name__[:-6]} width {width} {blocks['encoder_blocks']} {batch} x {side} px"
            print(
                f"{name + (' bfloat16' if half else ' float32'):52s} {kept:9.0f} {again:9.0f} {again / kept:6.2f}x"
                f" {memory[0]:8.0f} {memory[1]:9.0f} {memory[0] / memory[1]:6.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
