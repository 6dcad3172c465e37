"""``train``: a base model and prompt/completion pairs into a checkpoint folder, by TRL's SFTTrainer.

There is no training loop here. This file checks the input, hands settings to TRL, and writes the result whole
or not at all.
"""

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift import models
from knowshift.errors import InputError, missing_extra
from knowshift.files import atomic_folder, read_json, write_parquet
from knowshift.memory import keep_freed_memory
from knowshift.models import contents
from knowshift.models.write import write_like
from knowshift.progress import console
from knowshift.runs import record
from knowshift.train import processes
from knowshift.train.checkpoints import PREFIX, Checkpoints, alone, asked_for, disk_watched, made_from
from knowshift.train.data import to_dataset
from knowshift.train.examples import Examples, prepare, read_files
from knowshift.train.loading import load_to_train
from knowshift.train.methods import trains_adapter
from knowshift.train.methods.method import Method, Run
from knowshift.train.options import TrainOptions
from knowshift.train.stop import rewind, told, watch
from knowshift.train.trl_settings import refusals, sft_config

if TYPE_CHECKING:
    from knowshift.train.knowledge.callback import KnowledgeCallback


def train(options: TrainOptions) -> Path:
    """Fine-tune ``options.model`` on ``options.data`` and return the folder that was written.

    The folder holds weights, configuration and tokenizer as a Hugging Face checkpoint (or a PEFT adapter), with
    ``README.md``, ``run.json`` and ``train_log.parquet``. The tokenizer is the base's, byte for byte.

    Raises:
        InputError: unusable options, data or model; a loss that is no number any more.
    """
    for package in ("trl", "peft", "accelerate", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "train")
    with processes.joined(timeout=options.set.get("ddp_timeout", 1800)):
        return _train(options)


def _train(options: TrainOptions) -> Path:
    if options.bf16 is None:
        bf16 = not options.set.get("fp16") and models.has_bf16(models.default_device())
        options = options.model_copy(update={"bf16": bf16})
    methods = options.methods()
    if processes.shards() and not all(method.divisible for method in methods):
        raise InputError(
            f"--method {options.method}: not where the model is divided among processes (FSDP, DeepSpeed); use DDP"
        )
    with processes.together():
        files = read_files(options)
        _may_write(options.out)
        base = models.resolve(options.model)
        if options.out.resolve() == base.resolve():
            raise InputError(f"--out {options.out}: this is the base model's own folder")
        tokenizer = models.load_tokenizer(base)
        context = context_length(base, tokenizer)
        if options.set.get("packing") and options.set.get("max_length") is None:
            options = options.model_copy(update={"set": {**options.set, "max_length": min(1024, context)}})
        examples = prepare(options, *files, tokenizer, context)
        digest = models.digest(base)
    kept = Checkpoints(options.out, made_from(options.settings(), examples.files, base=digest, **examples.digests))
    full = "; nothing was written under this name"
    with ExitStack() as stack:
        with processes.together(), disk_watched(options.out, full):
            if processes.leads():
                stack.enter_context(alone(options.out))
                folder = stack.enter_context(atomic_folder(options.out))
                settings, digests = options.settings(), {"base": digest}
                entry = stack.enter_context(record(folder, "train", settings, seed=options.seed, models=digests))
            start = kept.last()
            if start is None and options.resume_from is not None:
                start = asked_for(options.resume_from, kept.made_from)
        run = Run(base, tokenizer, examples.pairs, options)
        trainer, watched = _trained(run, examples, methods, kept, start)
        divided = processes.gather(trainer.model)
        with processes.together(), disk_watched(options.out, full):
            if processes.leads():
                _write(trainer.model, folder, base, adapter=trains_adapter(methods) and not options.merge)
                if watched is not None:
                    entry["drift"] = told(watched)
                entry |= examples.record
                _describe(folder, entry, options, methods, trainer.state.log_history)
                entry |= {"processes": processes.count(), "divided": divided}
                entry["train_seconds"] = next(
                    (line["train_runtime"] for line in reversed(trainer.state.log_history) if "train_runtime" in line),
                    None,
                )
                if start is not None:
                    entry["resumed_at"] = int(start.name.removeprefix(PREFIX))
                stack.close()
                kept.remove()
    if examples.merged:
        _note(
            f"in {examples.merged} of {len(examples.pairs)} examples a token spans the end of the prompt and the start "
            "of the completion; end prompts on a token boundary"
        )
    for other in kept.others:
        _note(f"{other} holds checkpoints of a run with other options or data, which were not used")
    return options.out


def _note(text: str) -> None:
    """What a user should know; said after the work, because what fails says one line alone."""
    console.print(f"note: {text}", soft_wrap=True)


def _describe(
    folder: Path,
    entry: dict[str, Any],
    options: TrainOptions,
    methods: Sequence[Method],
    history: list[dict[str, float]],
) -> None:
    """The log, the card, the chat template of the user's own, and what methods leave."""
    from knowshift.train.card import card
    from knowshift.train.log import log_table

    log = log_table(history)
    write_parquet(folder / "train_log.parquet", log)
    if options.chat_template is not None:
        shutil.copyfile(options.chat_template, folder / "chat_template.jinja")
    (folder / "README.md").write_text(card(options, methods, entry, log), "utf-8")
    for method in methods:
        method.leave(folder)


def context_length(base: Path, tokenizer: Any) -> int:
    """The longest sequence, in tokens, that both the model and its tokenizer accept."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{base}: cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    return int(min(limit for limit in limits if limit))


def _trained(
    run: Run, examples: Examples, methods: Sequence[Method], kept: Checkpoints, start: Path | None
) -> tuple[Any, "KnowledgeCallback | None"]:
    """TRL's trainer after training, and what watched it.

    The weights are float32 throughout; autocast rounds copies of them.
    """
    import datasets
    from transformers import PrinterCallback

    from knowshift.models.quiet import quiet
    from knowshift.train.log import Watch
    from knowshift.train.saving import Saver
    from knowshift.train.trainer import Trainer

    keep_freed_memory()
    model = load_to_train(run.base)
    bars = not datasets.are_progress_bars_disabled()
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="knowshift-") as scratch, quiet():
        datasets.disable_progress_bars()
        try:
            arguments: dict[str, Any] = {}
            every = run.options.save_steps
            watched = watch(run.options, kept.folder, start)
            for method in methods:
                run = replace(run, pairs=method.examples(model, run))
            for method in methods:
                method.prepare(model, run)
                arguments |= method.arguments(model, run)
            arguments |= {
                "args": sft_config(run.options, Path(scratch)),
                "train_dataset": to_dataset(examples.tokens(run)),
                "processing_class": run.tokenizer,
                "callbacks": [
                    Watch(stack),
                    *([] if every == 0 else [Saver(stack, every)]),
                    *([watched] if watched else []),
                ],
                "checkpoints": kept,
                "keepers": [keeper for method in methods if (keeper := method.keeper(run))],
            }
            with refusals():
                trainer = Trainer(model, **arguments)
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=None if start is None else str(start))
            if watched is not None:
                rewind(trainer, watched)
            trainer.finish()
        finally:
            if bars:
                datasets.enable_progress_bars()
    return trainer, watched


def _write(model: Any, folder: Path, base: Path, *, adapter: bool) -> None:
    """The adapter's folder, or a checkpoint in the base's stored types, adapters merged."""
    if adapter:
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(folder, safe_serialization=True)
        contents.copy_tokenizer(base, folder)
        return
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload(safe_merge=True)
    write_like(base, model, folder)


def _may_write(out: Path) -> None:
    """A folder that holds anything but an earlier training run is never replaced."""
    if out.is_file():
        raise InputError(f"--out {out}: this is a file, a folder is expected")
    if not out.is_dir() or not any(out.iterdir()):
        return
    earlier = (out / "run.json").is_file() and read_json(out / "run.json")
    if not isinstance(earlier, dict) or earlier.get("command") != "train":
        raise InputError(f"--out {out}: holds files that are no training run; choose an empty or new folder")
