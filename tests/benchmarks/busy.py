"""Training speed alone and with another process on the same cores, by how long threads spin while they wait.

    python -m tests.benchmarks.busy

One process, then two at a time, with all cores each, train the same small KBNet_s: as OpenMP does by
default, spinning for a short time (what `run` sets), and never spinning. Prints steps per second.
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


SETTINGS = {"default": {}, "short": {"GOMP_SPINCOUNT": "10000"}, "never": {"OMP_WAIT_POLICY": "passive"}}


def steps_per_second(setting: str, processes: int, seconds: float) -> float:
    """Mean over `processes` that train at the same time."""
    environment = {**os.environ, **SETTINGS[setting]}
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
    print("| processes | default | short spin | never spin |\n| --- | --- | --- | --- |")
    for processes in (1, 2):
        found: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(options.repeats):
            for setting, rates in found.items():
                rates.append(steps_per_second(setting, processes, options.seconds))
        cells = " | ".join(f"{median(rates):.2f}" for rates in found.values())
        print(f"| {processes} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
