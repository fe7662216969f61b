"""Training beside another process on the same cores, with threads that spin and threads that sleep while they wait.

    python -m tests.benchmarks.busy

Two processes with all cores each train the same small KBNet_s at the same time, then each alone;
OMP_WAIT_POLICY is `active` (spin) or `passive` (sleep). Prints steps per second.
"""

import argparse
import os
import subprocess
import sys
from statistics import median

PROGRAM = """
import sys, time, torch
from models import KBNetSConfig
model = KBNetSConfig(width=8, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,), lightweight=True).build()
images = torch.rand(8, 3, 64, 64)
model(images).abs().mean().backward()
started, steps = time.monotonic(), 0
while time.monotonic() - started < float(sys.argv[1]):
    model(images).abs().mean().backward()
    steps += 1
print(steps / (time.monotonic() - started))
"""


def steps_per_second(policy: str, processes: int, seconds: float) -> float:
    """Mean over `processes` that train at the same time."""
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-c", PROGRAM, str(seconds)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate()[0]) for process in running) / processes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8, help="length of one measurement")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| processes | spinning | sleeping | ratio |\n| --- | --- | --- | --- |")
    for processes in (1, 2):
        found: dict[str, list[float]] = {"active": [], "passive": []}
        for _ in range(options.repeats):
            for policy, rates in found.items():
                rates.append(steps_per_second(policy, processes, options.seconds))
        spinning, sleeping = median(found["active"]), median(found["passive"])
        print(f"| {processes} | {spinning:.2f} | {sleeping:.2f} | {sleeping / spinning:.1f} |", flush=True)


if __name__ == "__main__":
    main()
