"""The command `pareto`: quality against cost of a study's trials."""

import argparse

from search.commands import flag_values, flags


def add(commands: flags.Commands) -> None:
    pareto = commands.add_parser(
        "pareto",
        help="quality against cost of a study's trials",
        description="Print and draw the score of each finished trial against what its model costs, the front marked: "
        "those that no other beats in both.",
        epilog="example:\n  python -m search pareto kbnet --by ms",
        formatter_class=flags.Help,
    )
    flags.add_study(pareto)
    pareto.add_argument(
        "--by",
        choices=("parameters", "gmacs", "ms"),
        default="parameters",
        help="cost: trainable numbers, 10^9 multiply-adds at 256 x 256, or ms per megapixel",
    )
    flags.flag_adder(pareto)(
        "--to", "FILE.png", "the drawing (default: OUT/STUDY/pareto.png)", type=flags.path
    )
    flags.add_locations(pareto)


def main(options: argparse.Namespace) -> int:
    from search.analysis import write_pareto
    from search.database import load_study, read_records, study_folder
    from search.terminal import Terminal

    name = flag_values.study_name(options.study)
    study = load_study(name, flag_values.database_url(options))
    found = read_records(study)
    target = vars(options).get("to") or study_folder(options.out, study) / "pareto.png"
    write_pareto(name, found, options.by, target, Terminal(highlight=False))
    return 0
