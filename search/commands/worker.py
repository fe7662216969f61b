"""The command `worker`: joins a search that `run` has started, from this or another machine."""

import argparse
import os
import sys

from search.commands import flag_values, flags, output


def add(commands: flags.Commands) -> None:
    worker = commands.add_parser(
        "worker",
        help="help with a running search, from this or another machine",
        description="Join a search that `run` has opened: take trials from its database until nothing is left to do. "
        "Any number of workers may come and go, on any machine that reaches the database and OUT.",
        epilog="example:\n"
        "  python -m search worker --study kbnet --out /shared/runs --storage postgresql://host/restune",
        formatter_class=flags.Help,
    )
    flags.add_study(worker, "the study in the database")
    flag = flags.flag_adder(worker)
    flag(
        "--data",
        "DIR",
        "where the same pairs are on this machine (default: where `run` found them)",
        type=flags.path,
    )
    flags.add_side_folders(flag)
    worker.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    flag("--threads", "N", "processor threads to compute with (default: all)", type=int)
    flags.add_memory(worker)
    worker.add_argument("--quiet", action="store_true", help="print errors only")
    flags.add_locations(worker)
    # Between `run` and the workers that it starts.
    worker.add_argument("--index", type=int, default=os.getpid(), help=argparse.SUPPRESS)
    worker.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    worker.add_argument("--elapsed", type=float, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    worker.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    event_stream = None
    if options.supervised:
        # What libraries print must not get between our lines: it goes where errors go.
        event_stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
    from search.launch import JoinOptions, join_search
    from search.worker import RunOptions

    given = vars(options)
    how = JoinOptions(
        study=flag_values.study_name(options.study),
        options=RunOptions(
            storage=flag_values.database_url(options),
            out=options.out,
            device=flag_values.device(options.device),
            memory=flag_values.size_in_bytes(options.memory) if "memory" in given else None,
            quiet=options.quiet,
            index=options.index,
            workers=options.workers,
        ),
        threads=given.get("threads"),
        data=given.get("data"),
        scan_dir=given.get("scan_dir"),
        clean_dir=given.get("clean_dir"),
        pair_by=given.get("pair_by"),
        elapsed=given.get("elapsed"),
        event_stream=event_stream,
    )
    stopped = join_search(how)
    if stopped and not options.supervised and not options.quiet:
        print("stopped; what it was at goes on with the next worker", file=sys.stderr)
    return output.INTERRUPTED if stopped else 0
