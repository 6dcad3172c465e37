"""The sections of a repair's page: the frontier, the test, facts by name, drift, where weights went, the model."""

from typing import Any

import polars as pl

from knowshift.report import curves, repair_charts
from knowshift.report.blocks import Answer, Answers, Figure, Panel, Section, Table, Text
from knowshift.report.data import Run
from knowshift.report.listings import brief
from knowshift.report.repair_charts import title_of
from knowshift.report.repair_words import shares, task_change
from knowshift.report.words import Interval, count, listing, nats, percent, points_range

FRONTIER = ("name", "method", "settings", "part", "facts", "items", "knowledge", "task", "chosen")
EXAMPLES = (
    "kind", "topic", "asked", "answers", "base", "tuned", "repaired", "base_right", "tuned_right", "repaired_right",
)  # fmt: skip
PLACES = ("layer", "module", "elements", "moved", "removed_norm_share")
PARTS = {"search": "On search: every candidate", "validation": "On validation: the finalists"}
# Rows by name for each kind of change; the file holds all of them.
SHOWN = 400
# base, tuned, repaired right?
CHANGES = {
    (True, False, True): "returned",
    (True, False, False): "still lost",
    (True, True, False): "newly lost",
    (False, False, True): "gained",
    (False, True, False): "gain lost",
}
TASK_CHANGES = {(False, True): "task gained", (True, False): "task lost"}


def frontier(run: Run) -> Section:
    """Every candidate: knowledge kept against task kept."""
    section = Section("frontier", "What was tried", sources=["frontier.parquet"])
    table = run.table("frontier.parquet", FRONTIER)
    parts = [part for part in PARTS if table is not None and part in table["part"] and _tried(table, part)]
    if table is None or not parts:
        section.lead.append("No candidate was tried: the search ended before.")
        return section
    search = run.metrics.get("search", {})
    section.lead.append(
        "Right and up is better: more of the task, more of what the base knows. All candidates start on few facts and "
        "prompts; the better half goes on to twice as many, so points of early losers are less sure than others."
    )
    saved = search.get("answers_without_racing")
    if saved:
        section.lead.append(
            f"{count(search['candidates'], 'candidate')} took {count(search['answers'])} answers; each measured on all "
            f"of search would have taken {count(saved)}."
        )
    axis = "task prompts answered" if shares(run) else "task log-likelihood, nats a token"
    panels = tuple(
        Panel(
            f"frontier-{part}",
            repair_charts.frontier(
                table.filter(pl.col("part") == part, pl.col("method") != "base"), axis, shares=shares(run)
            ),
            PARTS[part] if len(parts) > 1 else "",
        )
        for part in parts
    )
    rows = [_row(run, row) for row in table.sort("part", "knowledge", descending=True).iter_rows(named=True)]
    columns = ("Model", "Method", "Settings", "Part", "Facts", "Known facts answered", "Prompts", "Task")
    chosen = table.filter(pl.col("chosen") & ~pl.col("method").is_in(["base", "tuned"]))
    said = f"Validation chose {title_of(chosen['method'][0]).lower()} ({chosen['name'][0]})." if len(chosen) else ""
    base = table.filter(method="base", part=parts[-1])
    if len(base):  # it cannot do the task, and would press all others into a corner of the chart
        known, task = percent(base["knowledge"][0]), _task_score(run, base["task"][0])
        said += f" The base model itself, not drawn: {known} of the facts, {task} on the task."
    section.blocks.append(
        Figure(
            "Knowledge kept against task kept, every method",
            f"{said} The best point of a search flatters: what counts is the test below.".strip(),
            panels,
            ("frontier.parquet",),
            Table("Every model measured", columns, rows, frozenset({4, 5, 6, 7})),
        )
    )
    return section


def test(run: Run) -> Section:
    """The one look at test."""
    section = Section("test", "Confirmed once on test", sources=["metrics.json"])
    told = run.metrics
    scores = told.get("scores", {})
    titles = {"base": "Base model", "tuned": "Tuned model", "repaired": f"Repaired: {told.get('chosen', '')}"}
    if told.get("chosen") == "tuned":
        del titles["repaired"]
    rows = [
        (title, percent(scores[role]["knowledge"]), _task_score(run, scores[role]["task"]))
        for role, title in titles.items()
        if role in scores
    ]
    if rows:
        caption = (
            f"{count(told['facts'], 'fact')} that the base knows and {count(told['items'], 'task prompt')} of test"
        )
        section.blocks.append(Table(caption, ("Model", "Known facts answered", "Task"), rows, frozenset({1, 2})))
    section.lead.append(
        f"Facts and prompts of test had no part in the search or the choice. The task may fall by at most "
        f"{told['max_task_drop']:.3f}; it changed by {task_change(run, told['task'])}."
        if "max_task_drop" in told and "repaired" in titles
        else "Facts and prompts of test had no part in the search or the choice."
    )
    compared = [("Tuned − base", told.get("since_base"))]
    if "repaired" in titles:
        compared += [
            ("Repaired − tuned", told.get("repair")),
            (f"Repaired − {told.get('rival')}", told.get("over_rival")),
        ]
    moved = [(name, change) for name, change in compared if change]
    if moved:
        table = pl.DataFrame(
            [(name, change["value"], change["low"], change["high"]) for name, change in moved],
            schema=["comparison", "value", "low", "high"],
            orient="row",
        )
        listed = [
            (name, count(change["gained"]), count(change["lost"]), points_range(Interval.of(change)), _p(change))
            for name, change in moved
        ]
        columns = ("Comparison", "Gained", "Lost", "Known facts answered", "Exact McNemar p")
        section.blocks.append(
            Figure(
                "Known facts answered on test, paired",
                f"{listing([f'{name}: {points_range(Interval.of(change))}' for name, change in moved])}.",
                (Panel("repair-test", curves.differences(table)),),
                ("metrics.json",),
                Table("Facts gained and lost", columns, listed, frozenset({1, 2, 3, 4})),
            )
        )
    return section


def facts(run: Run) -> Section:
    """What the models said, by name."""
    section = Section("facts", "Before and after, by name", sources=["examples.parquet"])
    table = run.table("examples.parquet", EXAMPLES)
    if table is None:
        section.lead.append("What the models said was not kept.")
        return section
    rows: list[Answer] = []
    cut = False
    shown: dict[str, int] = {}
    for row in table.iter_rows(named=True):
        change = _change(row)
        if change is None:
            continue
        shown[change] = shown.get(change, 0) + 1
        if shown[change] > SHOWN:
            cut = True
            continue
        said = [brief(row[role] or "") for role in ("base", "tuned", "repaired")]
        rows.append(Answer(change, brief(row["asked"]), brief(" / ".join(row["answers"][:3])), *said))
    order = [*CHANGES.values(), *TASK_CHANGES.values()]
    found = [change for change in order if change in shown]
    section.lead.append(
        f"{listing([f'{count(shown[change])} {change}' for change in found])}. Returned and still lost: known to the "
        "base, lost in the tuned model. Gain lost: what only the tuned model had answered."
        if found
        else "No answer of test changed from right to wrong or back."
    )
    note = f"At most {SHOWN} of a kind stand here; examples.parquet holds all." if cut else ""
    rows.sort(key=lambda answer: order.index(answer.change))
    if rows:
        section.blocks.append(Answers(found, rows, note))
    return section


def drift(run: Run) -> Section:
    """How far predictions are from the base, before and after."""
    section = Section("drift", "How far predictions moved", sources=["metrics.json"])
    measured = run.metrics.get("drift")
    if not measured:
        section.lead.append("Drift is measured where a repaired model is written.")
        return section
    found = {title: measured[role] for role, title in (("tuned", "Tuned model"), ("repaired", "Repaired model"))}
    means = {title: Interval.of(own["intervals"]["kl_tuned_base"]) for title, own in found.items()}
    table = pl.DataFrame(
        [(title, mean.value, mean.low, mean.high) for title, mean in means.items()],
        schema=["model", "value", "low", "high"],
        orient="row",
    )
    said = [
        f"{nats(mean.value)} ({mean.low:.2g} to {mean.high:.2g}) in the {title.lower()}"
        for title, mean in means.items()
    ]
    section.blocks.append(
        Figure(
            "KL to the base before and after the repair",
            f"On the answers to {count(next(iter(found.values()))['facts'], 'test fact')}: {listing(said)}.",
            (Panel("repair-drift", repair_charts.drift(table)),),
            ("metrics.json",),
        )
    )
    return section


def places(run: Run) -> Section:
    """Where the repair put weights back."""
    section = Section("places", "Where the repair took updates back", sources=["places.parquet"])
    table = run.table("places.parquet", PLACES)
    if table is None:
        section.lead.append("No repaired model was written.")
        return section
    every = table.group_by("module", maintain_order=True).agg(
        pl.col("elements").sum(), pl.col("moved").sum(), share=_weighted()
    )
    rows = [
        (row["module"], count(row["elements"]), count(row["moved"]), percent(row["share"]))
        for row in every.iter_rows(named=True)
    ]
    columns = ("Module", "Weights", "No longer tuned", "Squared update taken back, mean")
    listed = Table("By module, all layers", columns, rows, frozenset({1, 2, 3}))
    inside = (
        table.drop_nulls("layer")
        .group_by("layer", "module", maintain_order=True)
        .agg(pl.col("elements").sum(), share=_weighted())
    )
    moved, size = int(table["moved"].sum()), int(table["elements"].sum())
    text = f"{percent(moved / size)} of the weights no longer have the tuned model's bits."
    if inside.height:
        panel = Panel("repair-places", repair_charts.taken_back(inside))
        section.blocks.append(
            Figure("Squared update taken back, layer by module", text, (panel,), ("places.parquet",), listed)
        )
    else:
        section.lead.append(text)
        section.blocks.append(listed)
    return section


def model(run: Run, command: str) -> Section:
    """The written checkpoint: its card, and the command that makes all this again."""
    section = Section("model", "The repaired model", sources=["model/README.md"])
    card = run.folder / "model/README.md"
    if run.metrics.get("model") and card.is_file():
        section.lead.append(
            f"The checkpoint is the folder {run.metrics['model']}, and loads like the tuned one."
            + (
                f" The folder {run.metrics['adapter']} is the same repair as an adapter."
                if run.metrics.get("adapter")
                else ""
            )
        )
        section.blocks.append(Text("Its model card", card.read_text("utf-8")))
    else:
        section.lead.append("No checkpoint was written: the test does not support one.")
    section.blocks.append(Text("The command that makes this again", command))
    return section


def _tried(table: pl.DataFrame, part: str) -> bool:
    return not table.filter(pl.col("part") == part, ~pl.col("method").is_in(["base", "tuned"])).is_empty()


def _row(run: Run, row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["name"] + (" (chosen)" if row["chosen"] else ""),
        title_of(row["method"]),
        row["settings"].strip("{}").replace('"', ""),
        row["part"],
        count(row["facts"]),
        percent(row["knowledge"]) if row["knowledge"] is not None else "",
        count(row["items"]),
        _task_score(run, row["task"]) if row["task"] is not None else "",
    )


def _task_score(run: Run, score: float) -> str:
    return percent(score) if shares(run) else f"{score:.3f}"


def _change(row: dict[str, Any]) -> str | None:
    """What became of an answer, None for one that stayed as it was."""
    if row["kind"] == "knowledge":
        return CHANGES.get((row["base_right"], row["tuned_right"], row["repaired_right"]))
    return TASK_CHANGES.get((row["tuned_right"], row["repaired_right"]))


def _weighted() -> pl.Expr:
    """The mean share over weights."""
    return (pl.col("removed_norm_share") * pl.col("elements")).sum() / pl.col("elements").sum()


def _p(change: dict[str, Any]) -> str:
    return "< 0.001" if change["p_value"] < 0.001 else f"{change['p_value']:.2g}"
