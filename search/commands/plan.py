"""The command `plan`: predicts the costs of a search and the number of trials that its time is enough for."""

import argparse

from search.commands import flag_values, flags, output


def add(commands: flags.Commands) -> None:
    plan = commands.add_parser(
        "plan",
        help="what a search will cost and what its time buys, before it starts",
        description="Measure small, median and large recipes of a study on this device, for half a minute, and tell "
        "how many trials its time buys, how far they get, and whether it is enough. Several workers are measured "
        "while all of them work.",
        epilog="example:\n  python -m search plan kbnet --data my_pairs --budget 2h --workers 2",
        formatter_class=flags.Help,
    )
    flags.add_study(plan, "a shipped study, or a .toml file")
    flags.add_data(plan)
    flags.add_timeout(plan, "time of the run that is planned")
    flag = flags.flag_adder(plan)
    flag("--trials", "N", "trials in the whole study (default: as the study says)", type=int)
    flag(
        "--workers",
        "N",
        "processes that train at the same time, as `run` has them (default: one for each device)",
        type=int,
    )
    flags.add_json(plan)
    flags.add_search_flags(plan, "auto (every GPU, or the CPU), cpu, cuda:N, or several: cuda:0,cuda:1")
    flags.add_locations(plan)


def main(options: argparse.Namespace) -> int:
    from search.database import make_writable
    from search.launch import share_cores
    from search.plan import make_plan, show_plan
    from search.terminal import Terminal

    spec = flag_values.study_spec(options.study, options, "timeout", "trials", "seed")
    devices = flag_values.devices(options.device, vars(options).get("workers"))
    share_cores(devices)
    how = flag_values.run_options(options, devices[0])
    make_writable(how.out)
    target = vars(options).get("json")
    # What is printed for programs must not have a table before it.
    console = Terminal(highlight=False, quiet=how.quiet, stderr=target == "-")
    found = make_plan(spec, how, console, devices[1:])
    if target != "-":
        show_plan(found, console)
    if target is not None:
        output.write_output(target, found.to_json())
    return 0
