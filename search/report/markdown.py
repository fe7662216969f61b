"""The facts of a study as Markdown: what the page says, without its pictures and charts."""

from collections.abc import Iterable

from search.analysis import (
    END,
    FEWEST_RANKED,
    SIGNIFICANCE_RULE,
    markdown_table,
    sort_trials,
    trials_markdown,
)
from search.report.facts import ReportFacts
from search.text import clock, code_markdown, plain_markdown, printable

MOST_ROWS = 50


def report_markdown(facts: ReportFacts) -> str:
    """The report as one Markdown file."""
    return "\n\n".join(_sections(facts)) + "\n"


def _sections(facts: ReportFacts) -> Iterable[str]:
    yield f"# {plain_markdown(facts.study)}: {plain_markdown(facts.headline)}"
    yield "\n".join(f"- {plain_markdown(sentence)}" for sentence in facts.sentences)
    if facts.compared and facts.best is not None:
        yield "## The winner and the recipes that the study names"
        names = [f"trial {facts.best.number}", *(plain_markdown(t.label or t.name) for t in facts.known)]
        yield markdown_table(
            ["setting", *names],
            [[code_markdown(name), *map(plain_markdown, values)] for name, values in facts.compared],
        )
    if facts.confirmed:
        yield "## Trained again from new seeds"
        yield "\n".join(f"- {plain_markdown(line)}" for line in facts.confirmed)
    yield "## What mattered"
    yield "\n".join(f"- {plain_markdown(line)}" for line in facts.mattered)
    yield plain_markdown(SIGNIFICANCE_RULE)
    yield "## Which settings mattered"
    yield _importance(facts)
    if facts.contrasts:
        yield "## Dense-sparse-dense and precision"
        yield (
            "These trials differ in everything else, too, and the search chose who is on which side: no pairs, so "
            "a difference of means is a hint at most."
        )
        yield markdown_table(
            ["setting", "side", "mean PSNR (dB)", "trials", "at"],
            [
                [
                    contrast.what,
                    plain_markdown(group.value),
                    f"{group.mean:.2f}",
                    str(len(group.scores)),
                    f"{contrast.percent} %",
                ]
                for contrast in facts.contrasts
                for group in contrast.groups
            ],
        )
    yield "## Where the time went"
    yield markdown_table(
        ["trials", "number", "training", "validation and the rest"],
        [[s.what, str(s.trials), clock(s.training), clock(s.validation)] for s in facts.spent],
    )
    yield "## What went wrong"
    yield (
        markdown_table(
            ["kind", "trials", "reason, the latest"],
            [[plain_markdown(f.kind), str(len(f.trials)), plain_markdown(f.example)] for f in facts.failures],
        )
        if facts.failures
        else "Nothing: no trial failed, ran out of memory or time, or diverged."
    )
    yield "## Trials"
    yield trials_markdown(sort_trials(facts.trials, "psnr"), facts.best, MOST_ROWS)
    yield "## To repeat it"
    yield "\n".join(f"    {' '.join(printable(command).split())}" for command in facts.commands)
    yield "\n".join(f"- {name}: {plain_markdown(value)}" for name, value in facts.environment)


def _importance(facts: ReportFacts) -> str:
    found = facts.importance
    if not found.shares:
        return f"Not enough trials to say: {found.trials} can be compared, {FEWEST_RANKED} are needed."
    by = "the final score" if found.percent == END else f"the score at {found.percent} % of the steps"
    rows = [
        [code_markdown(name), f"{100 * share:.0f} %", f"{100 * found.chance[name]:.0f} %"]
        for name, share in found.shares.items()
        if share >= 0.01
    ]
    return (
        f"PED-ANOVA on {found.trials} trials, by {by}. What does not exceed chance says nothing.\n\n"
        + markdown_table(["setting", "share", "chance"], rows)
    )
