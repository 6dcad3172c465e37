"""What a run learns from: its data and, mixed in, a share of other data; read, checked and counted.

Knows files and seeds; not the trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowshift.errors import InputError
from knowshift.files import digest_file
from knowshift.seeds import derive
from knowshift.train.data import Pair, Tokens, read_pairs, tokenize, written
from knowshift.train.methods.method import Run
from knowshift.train.options import TrainOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ROLES = ("data", "replay", "chat_template")


@dataclass(frozen=True, slots=True)
class Examples:
    """What was read.

    Attributes:
        pairs: the task's examples, in the file's order.
        replay: the other data's, drawn.
        limit: the longest example that may be, in tokens.
        merged: examples in which a token spans prompt and completion.
        record: what ``run.json`` says of the files.
    """

    pairs: list[Pair]
    replay: list[Pair]
    limit: int
    merged: int
    record: dict[str, Any]

    @property
    def digests(self) -> dict[str, str | None]:
        """Of every file that was read, by its role."""
        return {name: self.record[name]["sha256"] if name in self.record else None for name in ROLES}

    @property
    def files(self) -> dict[str, str]:
        """Digests of the other files that options name, by option."""
        return {name: said["sha256"] for name, said in self.record["files"].items()}

    def tokens(self, run: Run) -> list[Tokens]:
        """All that is trained on, ``run.pairs`` as methods left them first.

        Raises:
            InputError: if one of them is too long by now.
        """
        task, _ = _tokens(run.pairs, run.options, run.tokenizer, self.limit)
        if run.options.replay is None:
            return task
        return task + tokenize(run.options.replay, self.replay, run.tokenizer, self.limit)[0]


def read_files(options: TrainOptions) -> tuple[list[Pair], list[Pair]]:
    """The examples of the data, and those the replay is drawn from: what can be said of them without a model.

    Raises:
        InputError: naming file and line.
    """
    pairs = read_pairs(options.data, chat=options.chat)
    return pairs, [] if options.replay is None else read_pairs(options.replay, chat=options.chat, text=True)


def prepare(
    options: TrainOptions,
    pairs: Sequence[Pair],
    pool: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    context: int,
) -> Examples:
    """Draw, write and check what ``read_files`` gave. A chat template of the user's own is given to ``tokenizer``.

    Raises:
        InputError: naming file and line.
    """
    if options.chat_template is not None:
        read_template(options.chat_template, tokenizer)
    limit = min(context, int(options.set.get("max_length") or context))
    task, replay = written(options.data, pairs, tokenizer), []
    _, merged = _tokens(task, options, tokenizer, limit)
    record: dict[str, Any] = {"data": _said(options.data) | {"examples": len(task)}}
    record["files"] = {name: _said(path) for name, path in options.files().items()}
    if options.chat_template is not None:
        record["chat_template"] = _said(options.chat_template)
    if options.replay is not None:
        replay = drawn(pool, len(task), options.replay_share, options.seed, options.replay)
        replay = written(options.replay, replay, tokenizer)
        tokenize(options.replay, replay, tokenizer, limit)
        share = len(replay) / (len(task) + len(replay))
        record["replay"] = _said(options.replay) | {"examples": len(replay), "of": len(pool), "share": share}
    return Examples(task, replay, limit, merged, record)


def _said(path: Path) -> dict[str, Any]:
    return {"file": str(path), "sha256": digest_file(path)}


def _tokens(
    pairs: Sequence[Pair], options: TrainOptions, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[Tokens], int]:
    """The task's examples as tokens, and how many of them were split otherwise than their prompt."""
    every_turn = bool(options.set.get("assistant_only_loss"))
    return tokenize(options.data, pairs, tokenizer, limit, assistant=every_turn)


def drawn(pool: Sequence[Pair], task: int, share: float, seed: int, path: Path) -> list[Pair]:
    """As many of ``pool`` as make ``share`` of all examples, in a random order; a larger share holds a smaller one's.

    Raises:
        InputError: naming ``path`` where it holds too few.
    """
    import numpy as np

    count = round(share * task / (1 - share))
    if count > len(pool):
        raise InputError(f"--replay-share {share}: {count} examples beside {task} are needed, {path} holds {len(pool)}")
    order = np.random.default_rng(derive(seed, "replay")).permutation(len(pool))
    return [pool[place] for place in order[:count]]


def read_template(path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give ``tokenizer`` the chat template in ``path``.

    Raises:
        InputError: if the file cannot be read or is no template.
    """
    from jinja2 import TemplateSyntaxError

    try:
        tokenizer.chat_template = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--chat-template {path}: cannot be read: {error}") from error
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: not a chat template: {error.message}") from error
    except Exception:  # a template may want other turns than this one: the data will tell
        return
