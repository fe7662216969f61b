"""The command `compare`: ranks several studies after equal training time."""

import argparse

from search.commands import flag_values, flags, output
from search.errors import UserError


def add(commands: flags.Commands) -> None:
    compare = commands.add_parser(
        "compare",
        help="give several studies equal time and rank their winners",
        description="Give every study the same training time, judge the winners on the same images, and write a "
        "ranking with intervals. The same command goes on where it stopped.",
        epilog="example:\n  python -m search compare --studies kbnet,srresnet --data my_pairs --budget 10m",
        formatter_class=flags.Help,
    )
    flag = flags.flag_adder(compare)
    flag("--studies", "NAME|FILE,...", "shipped studies or .toml files, separated by commas", required=True)
    compare.add_argument(
        "--budget",
        default="10m",
        metavar="TIME",
        help="training time of each study, earlier runs included: 90s, 20m, 1h30m; 0 compares what there is",
    )
    flag(
        "--label",
        "NAME",
        "compare studies called STUDY-NAME, so that one database holds comparisons on several folders "
        "(default: none)",
    )
    flags.add_data(compare)
    flag(
        "--test",
        "DIR",
        "pairs to judge by: DIR/{scan,clean} (default: the validation pairs)",
        type=flags.path,
    )
    compare.add_argument(
        "--force", action="store_true", help="judge by test images though training or validation has them"
    )
    flag(
        "--groups",
        "FILE|PATTERN",
        "which images share a page or scene: a CSV file with columns name,group, or a pattern whose capture "
        "group finds it in the name, as 'page(\\d+)' (default: none do)",
        type=flags.file_or_else,
    )
    flag("--to", "DIR", "folder of the ranking (default: OUT/compare, or OUT/compare-LABEL)", type=flags.path)
    flags.add_search_flags(compare)
    flags.add_locations(compare)


def main(options: argparse.Namespace) -> int:
    from search.analysis import CompareOptions, compare_studies, with_label
    from search.database import safe_name

    given = vars(options)
    specs = [flag_values.study_spec(name.strip(), options, "seed") for name in options.studies.split(",")]
    if "label" in given:
        specs = [with_label(spec, options.label) for spec in specs]
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--studies {options.studies}: {twice[0]} is there twice")
    label = f"-{options.label}" if "label" in given else ""
    outcome = compare_studies(
        specs,
        flag_values.run_options(options),
        CompareOptions(
            budget_seconds=flag_values.seconds("--budget", options.budget),
            to=given.get("to") or options.out / safe_name(f"compare{label}"),
            test=given.get("test"),
            groups=given.get("groups"),
            force=options.force,
        ),
    )
    if outcome.stopped:
        if not options.quiet:
            output.print_how_to_continue()
        return output.INTERRUPTED
    return 2 if outcome.failures else 0
