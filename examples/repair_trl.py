"""A plain TRL script that teaches a task and costs knowledge, and the three lines that give it back.

    python benchmarks/repair_task.py --out data          # made-up records to extract
    python examples/repair_trl.py [MODEL] [--data data] [--knowledge world] [--steps N] [--budget MINUTES]

MODEL is a folder or a hub id, by default the embedded SmolLM2-135M. Written in cells (``# %%``), as editors show them.
"""

# %%
import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import knowshift
from knowshift.models import resolve


# %% A fine-tune as many are done: one epoch, a high learning rate
def tune(base: Path, data: Path, out: Path, *, steps: int = -1, learning_rate: float = 1e-4) -> Path:
    """Train on ``data/train.jsonl`` (prompt, completion) and write the checkpoint folder ``out``."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base, dtype="float32"),
        args=SFTConfig(
            "trl-out",
            max_steps=steps,
            num_train_epochs=1,
            per_device_train_batch_size=8,
            learning_rate=learning_rate,
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=load_dataset("json", data_files=str(data / "train.jsonl"), split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(out))
    tokenizer.save_pretrained(out)
    return out


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Tune, repair, and say what came back; the figures of ``repaired/metrics.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--knowledge", default="world")
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--budget", type=float, default=10)
    options = parser.parse_args(arguments)
    base = resolve(options.model)
    tuned = tune(base, options.data, Path("tuned"), steps=options.steps, learning_rate=options.learning_rate)

    # %% The repair: what the base knows of these facts is to be kept, and the task, on prompts that were not trained on
    task = options.data / "task.jsonl"
    told = knowshift.repair(base, tuned, knowledge=options.knowledge, task=task, out="repaired", budget=options.budget)
    print(told["sentence"])

    # %% What to ship: the repaired checkpoint if the test supports one, else the tuned model as it is
    print(f"ship {Path('repaired', told['model']) if told['model'] else tuned}; read repaired/report.html")
    return told


# %%
if __name__ == "__main__":
    main()
