"""The command line: calls what the flags ask for, prints what to do next. Torch is imported only inside a command."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search import flags
from search.errors import UserError

if TYPE_CHECKING:
    import torch

    from search.restorer import How
    from search.run import Options, Outcome
    from search.study import StudySpec

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 2 a mistake of the user's, 130 stopped by Ctrl-C."""
    options = flags.parse(arguments)
    # Read once, when torch loads. Threads that spin for long hold up whoever shares their cores, those
    # that never spin lose on an idle machine: a short spin is a compromise (tests/benchmarks/busy.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with _user_errors():
            return COMMANDS[options.command](options)
    except UserError as error:
        print(f"search {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped at once; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (as `| head` does); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(
            f"search {options.command}: {error.filename or 'file'}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 2


@contextmanager
def _user_errors() -> Iterator[None]:
    """What is wrong with images or a search space is a mistake of the user's."""
    from data import DataError
    from search.space import SpaceError

    try:
        yield
    except (DataError, SpaceError) as error:
        raise UserError(str(error)) from None


def _run(options: argparse.Namespace) -> int:
    from search import run, storage

    spec = _spec(
        options.study,
        options,
        "name",
        "trials",
        "timeout",
        "trial_timeout",
        "confirm_seeds",
        "finalists",
        "seed",
    )
    outcome = run.run(spec, _how(options))
    storage.remember_command(storage.load_study(spec.name, _url(options)), options.typed)
    if not options.quiet:
        _say_what_next(options, spec.name, outcome)
    return INTERRUPTED if outcome.stopped else 0


def _compare(options: argparse.Namespace) -> int:
    from search import compare, study

    given = vars(options)
    specs = [_spec(name.strip(), options, "seed") for name in options.studies.split(",")]
    if "label" in given:
        specs = [compare.labelled(spec, options.label) for spec in specs]
    names = [spec.name for spec in specs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--studies {options.studies}: {twice[0]} is there twice")
    try:
        budget = study.parse_duration("0s" if options.budget == "0" else options.budget)
    except ValueError as error:
        raise UserError(f"--budget: {error}") from None
    assert isinstance(budget, float)
    label = f"-{options.label}" if "label" in given else ""
    outcome = compare.compare(
        specs,
        _how(options),
        compare.Options(
            budget_seconds=budget,
            to=given.get("to") or options.out / f"compare{label}",
            test=given.get("test"),
            groups=given.get("groups"),
            force=options.force,
        ),
    )
    if outcome.stopped:
        if not options.quiet:
            _say_how_to_go_on()
        return INTERRUPTED
    return 2 if outcome.failures else 0


def _export_best(options: argparse.Namespace) -> int:
    from search import export, formats, study
    from search.limits import LimitsConfig

    given = vars(options)
    name = study.load(options.study).name if options.study.endswith(".toml") else options.study
    limits = LimitsConfig.of(
        parameters=given.get("max_parameters"),
        gmacs=given.get("max_gmacs"),
        ms_per_megapixel=given.get("max_ms_per_megapixel"),
    )
    if limits and "trial" in given:
        raise UserError("--trial names one trial; --max-... choose among all: give one of them")
    choice = export.Choice(given.get("trial"), given.get("top"), limits)
    manner = export.Manner(formats.chosen(options.format), half=options.half, force=options.force)
    export.export(name, _url(options), options.out, given.get("to"), choice, manner)
    return 0


def _restore(options: argparse.Namespace) -> int:
    from search import restore

    given = vars(options)
    summary = restore.restore(
        restore.Options(
            model=options.model,
            inputs=options.inputs,
            out=options.o,
            how=_inference(options),
            overwrite=options.overwrite,
            suffix=options.suffix,
            format=given.get("format"),
            pdf_dpi=options.pdf_dpi,
            quiet=options.quiet,
        )
    )
    return INTERRUPTED if summary.stopped else int(bool(summary.failures))


def _evaluate(options: argparse.Namespace) -> int:
    from search import evaluation

    given = vars(options)
    evaluation.evaluate(
        evaluation.Options(
            model=options.model,
            data=options.data,
            scan_dir=given.get("scan_dir"),
            clean_dir=given.get("clean_dir"),
            groups=given.get("groups"),
            to=options.to,
            how=_inference(options),
            quiet=options.quiet,
        )
    )
    return 0


def _plan(options: argparse.Namespace) -> int:
    from rich.console import Console

    from search import plan, price, storage

    spec = _spec(options.study, options, "timeout", "trials", "seed")
    how = _how(options)
    storage.make_writable(how.out)
    target = vars(options).get("json")
    # What is printed for programs must not have a table before it.
    console = Console(highlight=False, quiet=how.quiet, stderr=target == "-")
    found = plan.make(spec, how, console)
    if target == "-":
        print(found.to_json())
        return 0
    price.show(found, console)
    if target is not None:
        Path(target).write_text(found.to_json() + "\n", encoding="utf-8")
    return 0


def _pareto(options: argparse.Namespace) -> int:
    from rich.console import Console

    from search import pareto, records, storage, study

    name = study.load(options.study).name if options.study.endswith(".toml") else options.study
    found = records.read(storage.load_study(name, _url(options)))
    target = vars(options).get("to") or options.out / name / "pareto.png"
    pareto.write(name, found, options.by, target, Console(highlight=False))
    return 0


def _mattered(options: argparse.Namespace) -> int:
    from rich.console import Console

    from search import mattered, onechange, storage, study

    name = study.load(options.study).name if options.study.endswith(".toml") else options.study
    try:
        budget = study.parse_duration(options.budget)
    except ValueError as error:
        raise UserError(f"--budget: {error}") from None
    if not isinstance(budget, float) or budget <= 0:
        raise UserError(f"--budget {options.budget}: must be longer than nothing")
    found, console = storage.load_study(name, _url(options)), Console(highlight=False)
    console.width = max(console.width, 118)  # of the tables
    stopped = False
    if options.check:
        storage.make_writable(options.out)
        how = onechange.Options(options.out, _device(options.device), budget, options.quiet)
        stopped = onechange.run(found, how)
    if not stopped:
        mattered.show(mattered.of_study(found), console)
    if check := onechange.of_study(found):
        onechange.show(check, console)
        for line in onechange.sentences(check):
            console.print(line, markup=False, soft_wrap=True)
    if stopped:
        _say_how_to_go_on()
    return INTERRUPTED if stopped else 0


def _report(options: argparse.Namespace) -> int:
    from search import page, report, storage, study, summary, trials

    files = {
        "html": ("report.html", page.html),
        "md": ("report.md", summary.markdown),
        "csv": ("trials.csv", lambda facts: trials.csv(facts.trials, facts.best)),
    }
    formats = [name.strip() for name in options.format.split(",")]
    if unknown := [name for name in formats if name not in files]:
        raise UserError(f"--format {options.format}: {unknown[0]!r} is not known (known: {', '.join(files)})")
    name = study.load(options.study).name if options.study.endswith(".toml") else options.study
    found = storage.load_study(name, _url(options))
    folder = vars(options).get("to") or options.out / name / "report"
    storage.make_writable(folder, "--to")
    facts = report.gather(found, options.out, _url(options), print, look=not options.no_pictures)
    print(facts.headline)
    for chosen in formats:
        file, write = files[chosen]
        (folder / file).write_text(write(facts), encoding="utf-8")
        print(folder / file)
    return 0


def _trials(options: argparse.Namespace) -> int:
    from rich.console import Console

    from search import records, storage, study, trials

    name = study.load(options.study).name if options.study.endswith(".toml") else options.study
    found = records.read(storage.load_study(name, _url(options)))
    best, shown = records.best(found), trials.in_order(found, options.sort)
    most = None if options.all else trials.FEW
    if options.format == "csv":
        print(trials.csv(shown, best), end="")
    elif options.format == "md":
        print(trials.markdown(shown, best, most))
    elif shown:
        trials.show(shown, Console(highlight=False), best, most)
    else:
        print(f"study {name!r} has no trials yet")
    return 0


def _dashboard(options: argparse.Namespace) -> int:
    from search import dashboard, study

    given = vars(options)
    name = given.get("study")
    if name is not None and name.endswith(".toml"):
        name = study.load(name).name
    dashboard.serve(
        dashboard.Options(
            url=_url(options),
            artifacts=options.out / "artifacts",
            study=name,
            host=options.host,
            port=options.port,
            token=given.get("token"),
            read_only=options.read_only,
            browser=not options.no_browser,
        )
    )
    return 0


def _studies(options: argparse.Namespace) -> int:
    from search import study

    specs = study.shipped()
    width = max(len(spec.name) for spec in specs)
    for spec in specs:
        print(f"{spec.name:<{width}}  {spec.description}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from search import checkup

    given = vars(options)
    return checkup.run(
        checkup.Options(**{name: given[name] for name in checkup.Options.__annotations__ if name in given})
    )


COMMANDS = {
    "check": _check,
    "run": _run,
    "compare": _compare,
    "export-best": _export_best,
    "restore": _restore,
    "evaluate": _evaluate,
    "plan": _plan,
    "pareto": _pareto,
    "mattered": _mattered,
    "report": _report,
    "trials": _trials,
    "dashboard": _dashboard,
    "studies": _studies,
}


def _spec(name: str, options: argparse.Namespace, *changes: str) -> "StudySpec":
    """The study of that name, with these settings and the data as the flags say."""
    from search import study

    given = vars(options)
    spec = study.with_flags(study.load(name), {key: given[key] for key in changes if key in given})
    if "data" in given:
        return spec.with_data(options.data, given.get("scan_dir"), given.get("clean_dir"))
    if given.keys() & {"scan_dir", "clean_dir"}:
        raise UserError("--scan-dir and --clean-dir name folders inside --data DIR, which is missing")
    return spec


def _how(options: argparse.Namespace) -> "Options":
    from search import run

    return run.Options(
        storage=_url(options),
        out=options.out,
        device=_device(options.device),
        memory=_bytes(options.memory) if "memory" in vars(options) else None,
        quiet=options.quiet,
        continue_with_changes=vars(options).get("continue_with_changes", False),
        warm_start=vars(options).get("warm_start"),
    )


def _inference(options: argparse.Namespace) -> "How":
    from search.restorer import How

    if options.tile != "auto" and not (options.tile.isdecimal() and int(options.tile) >= 64):
        raise UserError(f"--tile {options.tile}: not a side; write auto, or a number of pixels from 64 on")
    return How(
        device=_device(options.device),
        precision=options.precision,
        tile=None if options.tile == "auto" else int(options.tile),
        turns=8 if options.tta else 1,
        memory=_bytes(options.memory) if "memory" in vars(options) else None,
    )


def _url(options: argparse.Namespace) -> str:
    from search import storage

    return str(vars(options).get("storage") or storage.default_url(options.out))


def _say_what_next(options: argparse.Namespace, name: str, outcome: "Outcome") -> None:
    given = vars(options)
    if outcome.best_number is None:
        print("no trial has finished yet")
    else:
        gain = outcome.best_psnr_db - outcome.input_psnr_db
        print(
            f"best: trial {outcome.best_number}, {outcome.best_psnr_db:.2f} dB ({gain:+.2f} over the input)"
        )
    if outcome.stopped:
        _say_how_to_go_on()
    elif outcome.best_number is not None:
        places = f" --out {shlex.quote(str(options.out))}" if options.out != Path("runs") else ""
        places += f" --storage {shlex.quote(given['storage'])}" if "storage" in given else ""
        print(f"next: python -m search export-best --study {name}{places}")
        print(f"      python -m search report {name}{places}")
        print(f"      python -m search dashboard {name}{places}")


def _say_how_to_go_on() -> None:
    print(f"stopped; go on with: python -m search {shlex.join(sys.argv[1:])}")


def _bytes(size: str) -> int:
    """The number of bytes in "6G" or "800M"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MG])", size)
    if found is None:
        raise UserError(f"--memory {size}: not a size; write 800M or 6G")
    return round(float(found[1]) * {"M": 2**20, "G": 2**30}[found[2]])


def _device(name: str) -> "torch.device":
    """The device of that name, if this machine has it."""
    import torch

    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        name = there[-1] if len(there) == 1 else "cuda:0"
    if name not in there and not (name == "cuda" and len(there) > 1):
        raise UserError(f"--device {name}: not on this machine; there are auto, {', '.join(there)}")
    return torch.device("cuda:0" if name == "cuda" else name)


if __name__ == "__main__":
    sys.exit(main())
