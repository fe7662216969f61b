"""The command `stop`: a search saves its work and ends, wherever it runs."""

import argparse

from search.commands import flag_values, flags, output


def add(commands: flags.Commands) -> None:
    stop = commands.add_parser(
        "stop",
        help="have a running search save and end, wherever it runs",
        description="Ask all workers of a study to save their trials and end, and wait until they have. The command "
        "that started the search goes on with it later. Exit code 1 if some are still at work then.",
        epilog="example:\n  python -m search stop kbnet",
        formatter_class=flags.Help,
    )
    flags.add_study(stop)
    stop.add_argument(
        "--wait", default="60s", metavar="TIME", help="longest time to wait: 30s, 5m; 0 only asks"
    )
    flags.add_locations(stop)


def main(options: argparse.Namespace) -> int:
    from search.database import load_study, study_facts_of
    from search.manage import stop_workers

    name, wait_seconds = flag_values.study_name(options.study), flag_values.seconds("--wait", options.wait)
    study = load_study(name, flag_values.database_url(options))
    result = stop_workers(study, wait_seconds, print)
    if not result.asked:
        print(f"nobody is at work on {name}")
    elif not result.not_stopped:
        output.print_last_command(study_facts_of(study).commands)
    return int(bool(result.not_stopped))
