"""The model card of a fine-tuned checkpoint: what it was made from and how."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from knowshift.train.examples import ROLES
from knowshift.train.methods import trains_adapter
from knowshift.train.methods.method import Method
from knowshift.train.options import TrainOptions
from knowshift.train.stop import sentence


def card(options: TrainOptions, methods: Sequence[Method], entry: Mapping[str, Any], log: pl.DataFrame) -> str:
    """The text of ``README.md``.

    Args:
        options: the run's options.
        methods: what it was trained with.
        entry: the run record: base digest, versions, data.
        log: the training log, of which first and last losses are named.
    """
    adapter = trains_adapter(methods) and not options.merge
    data, base = entry["data"], entry["models"]["base"]
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    settings = options.settings()
    settings |= settings.pop("set")
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in settings.items())
    names = ", ".join(options.method.split("+"))
    title = " with ".join(method.title for method in methods)
    sources = "\n".join(f"- {method.title}: {method.source}" for method in methods)
    read = {role: entry[role] for role in ROLES if role in entry} | entry["files"]
    files = "\n".join(
        f"| {role.replace('_', ' ')} | `{said['file']}`, SHA-256 `{said['sha256']}` |" for role, said in read.items()
    )
    mixed = f", with {entry['replay']['examples']} examples of other data mixed in" if "replay" in entry else ""
    learned = "every turn of the assistant" if options.set.get("assistant_only_loss") else "the completion and its end"
    tokenizer = "with the chat template named below" if options.chat_template else "unchanged"
    watched = f"\n{sentence(entry['drift'])}\n" if "drift" in entry else ""
    return f"""---
library_name: {"peft" if adapter else "transformers"}
pipeline_tag: text-generation
tags: [knowshift, trl, {names}]
---
# {options.out.name}

{title} of `{options.model}` on {data["examples"]} examples{mixed}, {log.height} steps
(loss {log["loss"][0]:.3f} at the first, {log["loss"][-1]:.3f} at the last). The loss is taken on {learned}
alone. Weights were trained in float32{" under bfloat16 autocast" if options.bf16 else ""}. The tokenizer is the
base's, {tokenizer}.

| | |
|---|---|
| base | `{options.model}`, `{base}` |
{files}

{sources}
{watched}
## Settings

| option | value |
|---|---|
{rows}

Made with {versions}.
"""
