"""A LoRA adapter that forgot something: repaired, and where the repair allows, an adapter again.

    python examples/repair_lora.py ADAPTER --task task.jsonl [--task-metric M] [--knowledge world] [--budget MINUTES]

ADAPTER is a PEFT folder; its base is read from there. The task's prompts must not be those that it was trained on.
Written in cells (``# %%``), as editors show them.
"""

# %%
import argparse
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM

import knowshift
from knowshift.models.adapter import base_of


# %% What to ship: the adapter if there is one, else the full checkpoint, else the adapter as it was
def shipped(told: dict[str, Any], adapter: Path, out: Path) -> Any:
    """The model to use after a repair of ``adapter`` into ``out``."""
    if told["model"] and not told["adapter"]:
        return AutoModelForCausalLM.from_pretrained(out / told["model"])
    base = AutoModelForCausalLM.from_pretrained(base_of(adapter))
    return PeftModel.from_pretrained(base, out / told["adapter"] if told["adapter"] else adapter)


def main(arguments: list[str] | None = None) -> tuple[dict[str, Any], Any]:
    """Repair and load what came out: the figures of ``repaired/metrics.json``, and the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--task-metric", default="exact", choices=["exact", "contains", "log-likelihood"])
    parser.add_argument("--knowledge", default="world")
    parser.add_argument("--budget", type=float, default=10)
    options = parser.parse_args(arguments)

    # %% One call: base, adapter, what must be kept, what it was trained for
    adapter, out = options.adapter, Path("repaired")
    told = knowshift.repair(
        base_of(adapter),
        adapter,
        knowledge=options.knowledge,
        task=options.task,
        task_metric=options.task_metric,
        out=out,
        budget=options.budget,
    )
    print(told["sentence"])
    return told, shipped(told, adapter, out)


# %%
if __name__ == "__main__":
    main()
