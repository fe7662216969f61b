"""Correlation of the number of steps that recipes make with the same compute, with their scores and their time.

    python -m tests.benchmarks.early_lead tests/benchmarks/recordings/kbnet-noisyoffice.csv [MORE.csv]

`plan` simulates searches with such a correlation. Spearman's correlation over the recorded configurations.
"""

import argparse
from pathlib import Path

import pandas as pd
from scipy.stats import spearmanr

SHARES = ("1/16", "2/16", "4/16", "8/16", "16/16")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", type=Path, nargs="+", help="files that tests.benchmarks.curves wrote")
    for path in parser.parse_args().recordings:
        curves = pd.read_csv(path, comment="#")
        seconds = curves["steps"] * curves["step_seconds"]
        print(f"\n{path.stem}, {len(curves)} configurations\n")
        print("| score after | with steps | with seconds of training |\n| --- | --- | --- |")
        for share in SHARES:
            scores = curves[share].fillna(curves[share].min())  # what diverged is worst
            by = [spearmanr(what, scores).statistic for what in (curves["steps"], seconds)]
            print(f"| {share} | {by[0]:.2f} | {by[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
