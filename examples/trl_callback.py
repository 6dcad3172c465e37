"""A plain TRL script, and the two lines that show what the model forgets while it learns.

    python examples/trl_callback.py [MODEL] [--steps N] [--lora] [--without]

Fine-tunes on questions of the embedded facts; MODEL is a folder or a hub id, by default the embedded SmolLM2-135M.
``--without`` leaves the callback out, to compare times.
"""

import argparse
import time

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from knowshift import KnowledgeCallback  # line 1
from knowshift.facts.sources import read_facts
from knowshift.models import resolve


def main(arguments: list[str] | None = None) -> SFTTrainer:
    """Train, print the panel's figures and the seconds that training took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--without", action="store_true")
    options = parser.parse_args(arguments)

    folder = resolve(options.model)
    facts = read_facts("world", split="train")
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        args=SFTConfig(
            "trl-out",
            max_steps=options.steps,
            per_device_train_batch_size=8,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": f"Q: {fact.question} A:", "completion": f" {fact.answers[0]}"} for fact in facts]
        ),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(target_modules="all-linear") if options.lora else None,
    )
    if not options.without:
        trainer.add_callback(KnowledgeCallback(split="validation"))  # line 2
    begun = time.perf_counter()
    trainer.train()
    print(f"{time.perf_counter() - begun:.1f} s")
    return trainer


if __name__ == "__main__":
    main()
