"""The share of a search that is neither training nor validation.

    python -m tests.benchmarks.overhead --seconds 60 --trials 2

Runs a study of equal trials of about so many seconds on the embedded data, in a fresh process and
folder, and compares the time inside `train` with that of the whole process, start of Python included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from search.database import default_storage_url, load_study

PROGRAM = """
import sys, time
import search.launch
from search.launch import in_process
from search.worker import run_trial
inside = 0.0
def timed(*arguments, train=run_trial.train):
    global inside
    started = time.monotonic()
    try:
        return train(*arguments)
    finally:
        inside += time.monotonic() - started
run_trial.train = timed
from search.__main__ import main
search.launch.run_with_workers = lambda spec, options, devices: in_process.run_in_process(spec, options)
code = main(sys.argv[2:])
open(sys.argv[1], "w").write(str(inside))
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of a trial")
    parser.add_argument("--trials", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        probe = scratch / "probe.toml"
        probe.write_text(_study("probe", steps=20), encoding="utf-8")
        warm, _ = _run(probe, scratch / "runs", 1)
        database = default_storage_url(scratch / "runs")
        (trial,) = load_study("probe", database).get_trials()
        steps = round(options.seconds / trial.user_attrs["seconds_per_step"])
        study = scratch / "study.toml"
        study.write_text(_study("study", steps), encoding="utf-8")
        whole, inside = _run(study, scratch / "runs", options.trials)
    print(f"first run in a fresh folder, with making the embedded data: {warm:.1f} s")
    print(f"{options.trials} trials: {whole:.1f} s, of these {inside:.1f} s training and validation")
    print(f"overhead: {100 * (1 - inside / whole):.1f} %")


def _study(name: str, steps: int) -> str:
    model = {"kind": "kbnet_s", "width": 8, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in model.items())
    head = f'name = "{name}"\nladder = {{ rungs = 0 }}\ntimeout = "1h"'
    return f"{head}\n[recipe]\nsteps = {steps}\n[recipe.model]\n{lines}\n"


def _run(study: Path, out: Path, trials: int) -> tuple[float, float]:
    """Seconds of the whole process, and of these inside `train`."""
    result = out.with_suffix(".seconds")
    command = [sys.executable, "-c", PROGRAM, str(result), "run", "--study", str(study)]
    started = time.monotonic()
    subprocess.run([*command, "--out", str(out), "--trials", str(trials), "--quiet"], check=True)
    return time.monotonic() - started, float(result.read_text())


if __name__ == "__main__":
    main()
