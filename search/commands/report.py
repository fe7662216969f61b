"""The command `report`: the results of a study as one page."""

import argparse

from search.commands import flag_values, flags
from search.errors import UserError


def add(commands: flags.Commands) -> None:
    report = commands.add_parser(
        "report",
        help="write what a study found as a page to read and pass on",
        description="Write one HTML file about a study: what won and how sure that is, pictures before and after, "
        "curves, costs, what mattered, where the time went.",
        epilog="example:\n  python -m search report kbnet --format html,csv",
        formatter_class=flags.Help,
    )
    flags.add_study(report)
    report.add_argument("--format", default="html", metavar="LIST", help="any of html,md,csv")
    flags.flag_adder(report)("--to", "DIR", "folder to write (default: OUT/STUDY/report)", type=flags.path)
    report.add_argument(
        "--no-pictures", action="store_true", help="restore no images: done in a second, without intervals"
    )
    flags.add_locations(report)


def main(options: argparse.Namespace) -> int:
    from search.analysis import trials_csv
    from search.database import load_study, make_writable, study_folder
    from search.report import gather_facts, render_report, report_markdown

    files = {
        "html": ("report.html", render_report),
        "md": ("report.md", report_markdown),
        "csv": ("trials.csv", lambda facts: trials_csv(facts.trials, facts.best)),
    }
    formats = [name.strip() for name in options.format.split(",")]
    if unknown := [name for name in formats if name not in files]:
        raise UserError(f"--format {options.format}: {unknown[0]!r} is not known (known: {', '.join(files)})")
    name = flag_values.study_name(options.study)
    found = load_study(name, flag_values.database_url(options))
    folder = vars(options).get("to") or study_folder(options.out, found) / "report"
    make_writable(folder, "--to")
    facts = gather_facts(
        found, options.out, flag_values.database_url(options), print, restore_images=not options.no_pictures
    )
    print(facts.headline)
    for chosen in formats:
        file, write = files[chosen]
        (folder / file).write_text(write(facts), encoding="utf-8")
        print(folder / file)
    return 0
