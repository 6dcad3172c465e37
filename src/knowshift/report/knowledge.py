"""The sections about answers and tokens: mastery, accuracy, facts lost and gained, divergence."""

import polars as pl

from knowshift.report import charts, commands, headline, listings, tables
from knowshift.report.blocks import Figure, Panel, Section
from knowshift.report.data import DRIFT, FEW_SHOT, Run
from knowshift.report.theme import DOMAINS
from knowshift.report.words import capital, count, listing, nats, percent

UNSPLIT = "The test facts have no mastery level in this run, so nothing is split by level."


def mastery(run: Run) -> Section:
    """What the base model knew before training."""
    section = Section("mastery", "What the base model knew", commands=commands.mastery(run))
    table = run.mastery
    if table is None:
        section.lead.append("Mastery was not scored in this run, so levels are not shown here.")
        return section
    counts = tables.level_counts(table)
    forms = run.settings.get("templates")
    phrasings = "several phrasings" if forms is None else count(int(forms), "phrasing")
    trials = int(table["trials"].median() or 0)  # type: ignore[arg-type]
    section.lead.append(
        f"Every fact was put to the model in {phrasings} and sampled, {count(trials, 'sample')} a fact. "
        "The share of samples that hold an accepted answer is the fact's mastery; it decides the level, "
        "from 0 (never) to 4 (more than three quarters)."
    )
    shares = [
        f"{percent(part.filter(level=0).height / part.height, 0)} of {name.lower()} facts"
        for domain, name in DOMAINS.items()
        if (part := table.filter(domain=domain)).height
    ]
    section.blocks.append(
        Figure(
            "Facts at each mastery level",
            f"The model never found {listing(shares)}.",
            (Panel("mastery-levels", charts.mastery(counts)),),
            ("mastery/mastery.parquet",),
            listings.levels(table),
        )
    )
    section.blocks.append(listings.examples(tables.examples(table, run.seed)))
    section.sources.append("mastery/mastery.parquet")
    return section


def accuracy(run: Run) -> Section:
    """Closed-book accuracy of every model."""
    section = Section("accuracy", "Accuracy before and after")
    section.commands.extend(commands.training(run) + commands.evaluation(run))
    answers = {name: table for name in run.names if (table := run.answers(name)) is not None}
    if "base" not in answers:
        section.lead.append("The base model was not asked the test facts in this run, so nothing is compared.")
        return section
    section.lead.append(
        "Every model answers the test facts in the trained question form, greedily. Accuracy is the share of all test "
        "facts answered; beside it stands the unweighted mean over mastery levels, where every level weighs the same."
    )
    if run.untouched:
        section.lead.append("No fact of an out-of-domain topic is in any training set.")
    formed = {name: tables.mean(table, "in_format") for name, table in answers.items()}
    tuned = formed.get(run.main.name)
    if tuned is not None and formed["base"] < tuned - 0.1:
        section.lead.append(
            f"The base model ended {percent(formed['base'], 0)} of its answers in the trained form, the tuned one "
            f"{percent(tuned, 0)}, so part of what training changes is the form. Accuracy credits an answer anywhere "
            "in the text; the strict match wants it as whole words on the first line."
        )
    section.blocks.append(listings.accuracy(run, answers))
    section.lead.extend(filter(None, [headline.form(run), headline.caution(run)]))
    other = "base" if run.reference == FEW_SHOT else FEW_SHOT
    shown = {name: table for name, table in answers.items() if name != other and table["level"].count()}
    if shown:
        section.blocks.append(_level_figure(run, shown))
    else:
        section.lead.append(UNSPLIT)
    section.sources.extend(f"eval/{name}/answers.parquet" for name in answers)
    return section


def facts(run: Run) -> Section:
    """Facts kept, lost and gained, with names."""
    section = Section("facts", "Facts lost and gained", commands=commands.evaluation(run) + commands.restoration(run))
    moved = {name: table for name in run.names if (table := run.transitions(name)) is not None}
    if not moved:
        section.lead.append("This run holds no transitions, so single facts are not followed here.")
        return section
    counts = tables.change_counts(moved)
    labels = {name: run.label(name) for name in moved}
    panels = tuple(
        Panel(f"transitions-{domain}", charts.transitions(part, labels, domain), name)
        for domain, name in DOMAINS.items()
        if (part := counts.filter(domain=domain)).height
    )
    examples = " The base model was shown a few solved examples first." if run.reference == FEW_SHOT else ""
    section.lead.append(
        "A fact is kept if base and tuned model both answer it, lost if only the base does, gained if only the "
        f"tuned model does.{examples}"
    )
    section.blocks.append(
        Figure(
            "What became of each test fact",
            _most_lost(run, moved),
            panels,
            tuple(f"transitions/{name}.parquet" for name in moved),
            listings.changes(run, counts),
        )
    )
    if "restored" in moved and run.main.name in moved:
        back, newly = tables.given_back(moved[run.main.name], moved["restored"])
        lost = moved[run.main.name].filter(change="lost").height
        section.lead.append(
            f"Restoration answers {count(back)} of the {count(lost, 'fact')} that training on {run.main.title} "
            f"lost, and loses {count(newly)} that it had kept."
        )
    section.blocks.append(listings.named(run, moved))
    section.sources.extend(f"transitions/{name}.parquet" for name in moved)
    return section


def drift(run: Run) -> Section:
    """How far the next-token distributions moved."""
    section = Section("drift", "How far the predictions moved", commands=commands.drift(run))
    found = {
        model.name: table
        for model in run.tuned
        if (table := run.table(f"drift/{model.name}/drift.parquet", DRIFT)) is not None
    }
    if not found:
        section.lead.append("Divergence was not measured in this run.")
        return section
    section.lead.append(
        "KL(tuned‖base) compares both models' predictions for the tokens of the right answer, given the same "
        "text, over the whole vocabulary. It is in nats per answer token; 0 means identical predictions."
    )
    means = [f"{nats(tables.mean(table, 'kl_tuned_base'))} for {run.phrase(name)}" for name, table in found.items()]
    said = f"On average {listing(means)}."
    sources = tuple(f"drift/{name}/drift.parquet" for name in found)
    figures = tables.drift_by_level(found, run.seed)
    if figures.height:
        section.blocks.append(_drift_figure(run, figures, said, sources))
    else:
        section.lead.append(f"{said} {UNSPLIT}")
    section.lead.extend(_end(run))
    moved = run.metrics.get("drift", {}).get(run.main.name, {}).get("moved_most")
    if moved:
        section.blocks.append(listings.moved_most(moved, run.phrase(run.main.name)))
    section.sources.extend(sources)
    return section


def _drift_figure(run: Run, figures: pl.DataFrame, said: str, sources: tuple[str, ...]) -> Figure:
    labels = {model.name: model.label for model in run.tuned}
    # One scale for both domains, so that they can be compared by eye.
    top: float = figures.select(pl.col("high").max()).item()
    panels = tuple(
        Panel(f"drift-{domain}", charts.by_level(part, labels, "KL, nats per token", "KL(tuned‖base)", top), name)
        for domain, name in DOMAINS.items()
        if (part := figures.filter(domain=domain)).height
    )
    listed = listings.figures(run, figures, lambda value: f"{value:.3f}", "KL, nats per answer token")
    return Figure("Divergence from the base model by mastery level", said, panels, sources, listed)


def _end(run: Run) -> list[str]:
    """How far the prediction moved at the end of the answer, where form alone decides."""
    ends = {model.name: run.metrics.get("drift", {}).get(model.name, {}).get("end") for model in run.tuned}
    said = [f"{nats(float(end['kl_tuned_base']))} for {run.phrase(name)}" for name, end in ends.items() if end]
    if not said:
        return []
    return [f"Right after the answer, where a model has only to stop, it is {listing(said)}: form, not counted here."]


def _level_figure(run: Run, answers: dict[str, pl.DataFrame]) -> Figure:
    figures = tables.accuracy_by_level(answers)
    labels = {name: run.label(name) for name in answers}
    panels = tuple(
        Panel(f"accuracy-{domain}", charts.by_level(part, labels, "accuracy", "accuracy"), name)
        for domain, name in DOMAINS.items()
        if (part := figures.filter(domain=domain)).height
    )
    return Figure(
        "Accuracy by mastery level",
        _where_it_fell(run, figures),
        panels,
        tuple(f"eval/{name}/answers.parquet" for name in answers),
        listings.figures(run, figures, percent, "Accuracy"),
    )


def _where_it_fell(run: Run, figures: pl.DataFrame) -> str:
    """The levels whose intervals lie wholly apart before and after: a cautious reading, no test of its own."""
    pair = figures.filter(model=run.reference).join(figures.filter(model=run.main.name), on=["domain", "level"])
    if not pair.height:
        return "The base and the tuned model share no level."
    said = []
    for domain, name in DOMAINS.items():
        part = pair.filter(domain=domain).sort("level")
        down = part.filter(pl.col("high_right") < pl.col("low"))["level"].to_list()
        up = part.filter(pl.col("low_right") > pl.col("high"))["level"].to_list()
        for levels, verb in ((down, "fell"), (up, "rose")):
            if levels:
                said.append(f"{name.lower()} it {verb} at {_levels(levels)}")
    if not said:
        return f"At no single level do the intervals before and after training on {run.main.title} lie apart."
    return f"Where the intervals before and after training on {run.main.title} lie apart: {'; '.join(said)}."


def _levels(levels: list[int]) -> str:
    return f"{'level' if len(levels) == 1 else 'levels'} {listing([str(level) for level in levels])}"


def _most_lost(run: Run, moved: dict[str, pl.DataFrame]) -> str:
    name = run.main.name if run.main.name in moved else next(iter(moved))
    table = moved[name]
    lost = table.filter(change="lost")
    if not lost.height:
        return f"{capital(run.phrase(name))} lost no test fact."
    known = table.filter(pl.col("change").is_in(["kept", "lost"]))
    topics = lost["topic"].value_counts(sort=True).sort("count", "topic", descending=[True, False])
    topic, most = topics.row(0)
    return (
        f"Of the {count(known.height, 'fact')} that the base model answered, {run.phrase(name)} lost "
        f"{count(lost.height)} ({percent(lost.height / known.height, 0)}), {count(most)} of them of the topic "
        f"{topic.replace('_', ' ')}."
    )
