"""The command `mattered`: which settings mattered, in plain sentences."""

import argparse

from search.commands import flag_values, flags, output
from search.errors import UserError


def add(commands: flags.Commands) -> None:
    mattered = commands.add_parser(
        "mattered",
        help="which settings mattered, in plain sentences",
        description="Say for each question (loss, augmentation, width against depth, learning rate, schedule, "
        "dense-sparse-dense, precision, batch and patch) whether it mattered in a study, by how much, and how sure "
        "that is. With --check the winner's recipe is trained anew with one change at a time; the same command "
        "goes on where it stopped.",
        epilog="examples:\n  python -m search mattered kbnet\n  python -m search mattered kbnet --check --budget 20m",
        formatter_class=flags.Help,
    )
    flags.add_study(mattered)
    mattered.add_argument(
        "--check", action="store_true", help="train the winner's recipe with one change at a time"
    )
    mattered.add_argument(
        "--budget", default="10m", metavar="TIME", help="time of all trainings of the check: 90s, 20m, 1h30m"
    )
    mattered.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    mattered.add_argument("--quiet", action="store_true", help="with --check: show no progress")
    flags.add_locations(mattered)


def main(options: argparse.Namespace) -> int:
    from search.analysis import (
        AblationOptions,
        ablation_sentences,
        find_what_mattered,
        read_ablation,
        run_ablation,
        show_ablation,
        show_what_mattered,
    )
    from search.database import load_study, make_writable
    from search.terminal import Terminal

    name = flag_values.study_name(options.study)
    budget = flag_values.seconds("--budget", options.budget)
    if budget <= 0:
        raise UserError(f"--budget {options.budget}: must be longer than nothing")
    found, console = load_study(name, flag_values.database_url(options)), Terminal(highlight=False)
    console.width = max(console.width, 118)  # of the tables
    stopped = False
    if options.check:
        make_writable(options.out)
        how = AblationOptions(options.out, flag_values.device(options.device), budget, options.quiet)
        stopped = run_ablation(found, how)
    if not stopped:
        show_what_mattered(find_what_mattered(found), console)
    if check := read_ablation(found):
        show_ablation(check, console)
        for line in ablation_sentences(check):
            console.print(line, markup=False, soft_wrap=True)
    if stopped:
        output.print_how_to_continue()
    return output.INTERRUPTED if stopped else 0
