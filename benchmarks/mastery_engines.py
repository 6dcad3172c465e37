"""What ``mastery.py`` compares: knowshift's engine, plain ``generate``, and vLLM in a process of its own.

Each takes prompts and gives their draws, with the seconds that took. All get the same token ids, sample at the same
temperature from the whole distribution, and answer in the number type of the same checkpoint.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from knowshift.facts.matching import Matcher
from knowshift.generate.encode import encode
from knowshift.generate.engine import Prompt
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.seeds import derive

WORKER = Path(__file__).with_name("mastery_vllm.py")


@dataclass(frozen=True)
class Work:
    """How the prompts are to be answered."""

    samples: int
    temperature: float
    tokens: int
    seed: int


@dataclass
class Answered:
    """Draws of some prompts.

    Attributes:
        seconds: time it took, tokenization and reading back included.
        texts: for each prompt, its draws.
        ids: for each prompt, the token ids of its draws, where the engine gives them; an end token stands last.
    """

    seconds: float
    texts: list[list[str]]
    ids: list[list[list[int]]] = field(default_factory=list)


class Rival(Protocol):
    """One engine under test. ``settings`` are those worth reporting."""

    name: str
    settings: dict[str, Any]

    def answer(self, prompts: Sequence[Prompt], matchers: Sequence[Matcher], work: Work) -> Answered: ...

    def close(self) -> None: ...


class Knowshift:
    """knowshift's engine as ``knowshift mastery`` asks it: a draw ends once its verdict stands."""

    name = "knowshift"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.engine = TransformersEngine(model, tokenizer)
        self.settings = {"rows": self.engine.rows, "dtype": str(model.dtype).removeprefix("torch.")}
        self._calls: list[tuple[int, int]] = []
        self._answering = False
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, positional: Any, named: dict[str, Any]) -> None:
        ids = named.get("input_ids", positional[0] if positional else None)
        if self._answering and ids is not None:
            self._calls.append((ids.numel(), ids.shape[-1]))

    def fed(self) -> dict[str, float]:
        """Tokens that went through the model in the last answer, and the mean rows of a decoding step."""
        steps = [count for count, width in self._calls if width == 1]
        read = sum(count for count, width in self._calls if width > 1)
        rows = sum(steps) / len(steps) if steps else float(self.engine.rows)
        return {"fed_tokens": sum(steps), "fed_prompt_tokens": read, "rows": rows}

    def answer(self, prompts: Sequence[Prompt], matchers: Sequence[Matcher], work: Work) -> Answered:
        self._calls.clear()
        self._answering = True
        begun = time.monotonic()
        draws = self.engine.sample(
            prompts,
            samples=work.samples,
            temperature=work.temperature,
            max_new_tokens=work.tokens,
            seed=work.seed,
            stop=lambda index, text: matchers[index].settled(text),
        )
        seconds = time.monotonic() - begun
        self._answering = False
        return Answered(seconds, [[draw.text for draw in own] for own in draws])

    def close(self) -> None:
        """Nothing to end."""


class Generate:
    """``generate(num_return_sequences=n)`` as transformers has it: prompts by length, padded on the left.

    The number of prompts in a batch is the best of ``BATCHES``, tried on the first prompts it gets.
    """

    name = "generate"
    BATCHES = (8, 16, 32)

    def __init__(self, model: Any, tokenizer: Any, batch: int | None = None) -> None:
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self.settings: dict[str, Any] = {"batch": batch, "dtype": str(model.dtype).removeprefix("torch.")}

    def answer(self, prompts: Sequence[Prompt], matchers: Sequence[Matcher], work: Work) -> Answered:
        if self.batch is None:
            self._tune(prompts, work)
        begun = time.monotonic()
        encoded = encode(self.tokenizer, prompts)
        ids: list[list[list[int]]] = [[] for _ in prompts]
        order = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
        for start in range(0, len(order), self.batch or 1):
            members = order[start : start + (self.batch or 1)]
            torch.manual_seed(derive(work.seed, prompts[members[0]].key))
            for member, draws in zip(members, self._generate([encoded[m] for m in members], work), strict=True):
                ids[member] = draws
        texts = [self.tokenizer.batch_decode(draws, skip_special_tokens=True) for draws in ids]
        return Answered(time.monotonic() - begun, texts, ids)

    def _generate(self, encoded: list[list[int]], work: Work) -> list[list[list[int]]]:
        inputs = self.tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            output = self.model.generate(
                **inputs.to(self.model.device),
                do_sample=True,
                temperature=work.temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=work.samples,
                max_new_tokens=work.tokens,
            )
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        ends = end_tokens(self.model)
        trimmed = [_to_end(ids, ends) for ids in new]
        return [trimmed[start : start + work.samples] for start in range(0, len(trimmed), work.samples)]

    def _tune(self, prompts: Sequence[Prompt], work: Work) -> None:
        """Prompts of middling length at each size of batch, untimed elsewhere; the fastest by the prompt stays."""
        encoded = sorted(encode(self.tokenizer, prompts), key=len)
        rates = {}
        for batch in self.BATCHES:
            start = max(0, (len(encoded) - batch) // 2)
            some = encoded[start : start + batch]
            begun = time.monotonic()
            self._generate(some, work)
            rates[batch] = len(some) * work.samples / (time.monotonic() - begun)
        self.batch = max(rates, key=lambda batch: rates[batch])
        self.settings |= {
            "batch": self.batch,
            "samples_per_second_by_batch": {k: round(v, 2) for k, v in rates.items()},
        }

    def close(self) -> None:
        """Nothing to end."""


class Vllm:
    """vLLM in the environment of ``python``, loaded once; it waits on a pipe while others run."""

    name = "vllm"

    def __init__(self, python: Path, model: Path, tokenizer: Any, log: Path, dtype: str) -> None:
        self.tokenizer = tokenizer
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        environment = {
            "VLLM_CPU_KVCACHE_SPACE": "4",
            "VLLM_CPU_OMP_THREADS_BIND": cores,  # left alone, vLLM keeps a core free for its scheduler
            "VLLM_NO_USAGE_STATS": "1",
            **{name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "PYTHONPATH")},
        }
        options = {"dtype": dtype, "max_model_len": 512}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [str(python), str(WORKER), json.dumps({"model": str(model), **options})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        told = {name: environment[name] for name in sorted(environment) if name.startswith("VLLM_CPU")}
        self.settings = {**self._reply(log), **options, **told}

    def answer(self, prompts: Sequence[Prompt], matchers: Sequence[Matcher], work: Work) -> Answered:
        begun = time.monotonic()
        encoded = encode(self.tokenizer, prompts)
        request = {
            "prompts": encoded,
            "samples": work.samples,
            "temperature": work.temperature,
            "tokens": work.tokens,
        }
        own = time.monotonic() - begun
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        reply = self._reply()
        self._wait_until_idle()
        texts = [[text for text, _ in draws] for draws in reply["draws"]]
        # The pipe is ours, not vLLM's: its time is what vLLM took itself, and the tokenization.
        return Answered(own + reply["seconds"], texts, [[ids for _, ids in draws] for draws in reply["draws"]])

    def busy_seconds(self) -> float:
        """Processor time of all its processes so far (``/proc``): they must be idle while others are timed."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == self._process.pid:  # the session it leads
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _wait_until_idle(self, longest: float = 20.0) -> None:
        """Its processes look for work in a busy loop for some seconds after an answer; nobody is timed meanwhile."""
        until, before = time.monotonic() + longest, self.busy_seconds()
        while time.monotonic() < until:
            time.sleep(0.5)
            now = self.busy_seconds()
            if now - before < 0.03:
                return
            before = now

    def _reply(self, log: Path | None = None) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"vLLM ended with status {self._process.wait()}" + (f": see {log}" if log else ""))
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def end_tokens(model: Any) -> set[int]:
    """The ids at which ``generate`` ends a draw."""
    configured = model.generation_config.eos_token_id
    return set(configured if isinstance(configured, list) else [configured])


def _to_end(ids: list[int], ends: set[int]) -> list[int]:
    """``ids`` up to and with the first end token; what follows is padding."""
    return next((ids[: place + 1] for place, token in enumerate(ids) if token in ends), ids)
