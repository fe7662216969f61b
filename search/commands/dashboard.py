"""The command `dashboard`: studies in a browser."""

import argparse

from search.commands import flag_values, flags


def add(commands: flags.Commands) -> None:
    dashboard = commands.add_parser(
        "dashboard",
        help="look at studies in a browser, while they run or later",
        description="Serve optuna-dashboard on the database, with the pictures of all trials. Ctrl-C ends it.",
        epilog="example:\n  python -m search dashboard kbnet",
        formatter_class=flags.Help,
    )
    flags.add_study(dashboard, "the study to open (default: the list)", required=False)
    dashboard.add_argument("--port", type=int, default=8080, metavar="N", help="0 takes any free one")
    dashboard.add_argument(
        "--host", default="127.0.0.1", help="address to serve on; any but this machine's own asks for a token"
    )
    flags.flag_adder(dashboard)(
        "--token", "TEXT", "what a browser must know (default: made up where it is needed)"
    )
    dashboard.add_argument("--read-only", action="store_true", help="refuse every change from the browser")
    dashboard.add_argument("--no-browser", action="store_true", help="only print the address")
    flags.add_locations(dashboard)


def main(options: argparse.Namespace) -> int:
    from search.dashboard import DashboardOptions, serve_dashboard
    from search.database import artifacts_folder

    given = vars(options)
    serve_dashboard(
        DashboardOptions(
            url=flag_values.database_url(options),
            artifacts=artifacts_folder(options.out),
            study=flag_values.study_name(given["study"]) if "study" in given else None,
            host=options.host,
            port=options.port,
            token=given.get("token"),
            read_only=options.read_only,
            browser=not options.no_browser,
        )
    )
    return 0
