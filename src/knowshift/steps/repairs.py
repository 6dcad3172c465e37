"""What fine-tuning forgot, given back: ``repair``."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.facts.sources import read_facts
from knowshift.runs import record
from knowshift.steps.inputs import resolve_pair

if TYPE_CHECKING:
    from knowshift.repair.run import RepairOptions


def repair(base: str, tuned: str, out: Path, options: "RepairOptions") -> dict[str, Any]:
    """``knowshift repair``: search, confirm, write ``model/`` if test supports it, and what tells of it.

    The page is written where the packages that draw are installed.

    Returns:
        ``metrics.json``.
    """
    from knowshift.models import resident
    from knowshift.repair.results import Models
    from knowshift.repair.run import Repair
    from knowshift.repair.task import read_task

    facts, items = read_facts(options.knowledge), read_task(options.task)
    base_path, tuned_path, digests = resolve_pair(base, tuned)
    folder = Path(tuned).expanduser()
    models = Models(base_path, tuned_path, (base, tuned), folder if resident.is_adapter(folder) else None)
    with record(out, "repair", {"base": base, "tuned": tuned, **options.model_dump()}, seed=options.seed) as entry:
        entry["models"] = digests
        job = Repair(models, facts, items, out, options)
        told = job.run(_command(base, tuned, out, options))
    if all(map(find_spec, ("altair", "vl_convert", "jinja2"))):
        from knowshift.report import build

        build(out)
    return told


def _command(base: str, tuned: str, out: Path, options: "RepairOptions") -> list[str]:
    command = ["knowshift", "repair", base, tuned, "--knowledge", options.knowledge, "--task", str(options.task)]
    command += ["--out", str(out), "--task-metric", options.task_metric]
    if options.max_task_drop is not None:
        command += ["--max-task-drop", f"{options.max_task_drop:g}"]
    return [*command, "--budget", f"{options.budget:g}", "--seed", str(options.seed)]
