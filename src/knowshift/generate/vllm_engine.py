"""Sampling on vLLM: the path for many GPUs and for models that one GPU does not hold.

vLLM batches and caches as it sees fit; this file says what is drawn and reads what comes back as the other engine
would have left it. Every draw has a seed of its own, so it does not depend on its neighbours, but for the rounding of
whatever vLLM happens to batch together: unlike there, a repeated run may differ in single draws. vLLM cannot ask our
stop test, so a draw is decoded to its end and cut afterwards at the first token that meets the test. Knows nothing of
facts.
"""

import io
import math
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from knowshift.errors import InputError, missing_extra
from knowshift.generate.encode import encode
from knowshift.generate.engine import Completion, NotFinite, Prompt, as_prompts
from knowshift.seeds import derive

# KV cache on a CPU, where vLLM would otherwise reserve nearly all of the memory; VLLM_CPU_KVCACHE_SPACE overrides it.
CPU_CACHE_BYTES = 4 << 30


class VllmEngine:
    """An ``Engine`` on a model that vLLM loads.

    Args:
        path: a complete checkpoint folder, as ``models.resolve`` returns it.
        tokenizer: that folder's tokenizer; texts and token ids are ours, vLLM sees ids alone.
        dtype: ``auto`` (bfloat16 where the device computes in it) or the name of a torch type.
        tensor_parallel_size: over how many devices each layer is split.
        options: any other argument of ``vllm.LLM``, such as ``gpu_memory_utilization``, ``max_model_len`` (default:
            as much of the model's context as its cache has room for), ``max_num_seqs`` or ``enforce_eager``.

    Raises:
        InputError: vLLM is not installed, or cannot load this model here.
    """

    def __init__(
        self, path: Path, tokenizer: Any, *, dtype: str = "auto", tensor_parallel_size: int = 1, **options: Any
    ) -> None:
        # Before vLLM is imported: it reads these once. It would log every step of loading, and call home.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        try:
            self._vllm: Any = import_module("vllm")
        except ModuleNotFoundError as error:
            raise missing_extra(error.name or "vllm", "vllm") from error
        platform = import_module("vllm.platforms").current_platform
        if platform.is_cpu() and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            options.setdefault("kv_cache_memory_bytes", CPU_CACHE_BYTES)
        self.tokenizer = tokenizer
        self._ends = end_tokens(path, tokenizer)
        try:
            self._model = self._vllm.LLM(
                str(path),
                dtype=_number_type(platform) if dtype == "auto" else dtype,
                tensor_parallel_size=tensor_parallel_size,
                skip_tokenizer_init=True,
                enable_prefix_caching=True,
                generation_config="vllm",  # else the checkpoint's own top-p, top-k and temperature would apply
                **{"max_model_len": -1, **options},
            )
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            raise InputError(f"{path}: vLLM cannot load it: {_first_line(error)}") from error
        config = self._model.llm_engine.vllm_config
        self.rows: int = config.scheduler_config.max_num_seqs
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.context: int = config.model_config.max_model_len
        self._refuse_nan(path)

    def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        samples: int,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        first: int = 0,
        greedy: bool = False,
        stop: Callable[[int, str], bool] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        """Independent draws; see ``Engine.sample``."""
        if samples < 1 or max_new_tokens < 1 or not temperature > 0:
            raise InputError("samples and max-new-tokens must be at least 1 and temperature above 0")
        encoded = self._encode(prompts, max_new_tokens)
        # vLLM gives the j-th completion of a request the request's seed + j (vllm/v1/engine/parallel_sampling.py), so
        # draws first, first + 1, ... of a stream are those of one request that starts later.
        params = [
            self._params(max_new_tokens, n=samples, temperature=temperature, seed=_seed(seed, prompt.key, first))
            for prompt in prompts
        ]
        if greedy:
            params += [self._params(max_new_tokens, temperature=0.0)] * len(prompts)
        drawn = self._generate(encoded * (1 + greedy), params, samples + greedy, advance)
        if greedy:
            count = len(prompts)
            drawn = [draws + best for draws, best in zip(drawn[:count], drawn[count:], strict=True)]
        return [self._cut(index, draws, stop) for index, draws in enumerate(drawn)]

    def greedy(
        self, prompts: Sequence[str | Prompt], *, max_new_tokens: int, advance: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """The most likely continuation of each prompt, token by token."""
        return self._greedy(self._encode(as_prompts(prompts), max_new_tokens), max_new_tokens, None, advance)

    def answer(
        self,
        prompts: Sequence[str | Prompt],
        given: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop: Callable[[int, str], bool] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> list[tuple[Completion, float]]:
        """Greedy continuations and log-probabilities; see ``Engine.answer``."""
        encoded = self._encode(as_prompts(prompts), max(max_new_tokens, 1 + max(map(len, given), default=0)))
        completions = self._greedy(encoded, max_new_tokens, stop, advance)
        whole = [{"prompt_token_ids": [*ids, *own]} for ids, own in zip(encoded, given, strict=True)]
        # vLLM scores what stands in a prompt, and draws one token more, which nobody reads.
        params = self._params(1, temperature=0.0, prompt_logprobs=0)
        outputs = self._model.generate(whole, params, use_tqdm=False) if whole else []
        return [
            (completion, _log_prob(output.prompt_logprobs, own))
            for completion, output, own in zip(completions, outputs, given, strict=True)
        ]

    def _greedy(
        self,
        encoded: list[list[int]],
        max_new_tokens: int,
        stop: Callable[[int, str], bool] | None,
        advance: Callable[[int], None] | None,
    ) -> list[Completion]:
        params = [self._params(max_new_tokens, temperature=0.0)] * len(encoded)
        drawn = self._generate(encoded, params, 1, advance)
        return [self._cut(index, draws, stop)[0] for index, draws in enumerate(drawn)]

    def _encode(self, prompts: Sequence[Prompt], limit: int) -> list[list[int]]:
        encoded = encode(self.tokenizer, prompts)
        for ids in encoded:
            if len(ids) + limit > self.context:
                raise InputError(
                    f"a prompt of {len(ids)} tokens and {limit} new ones pass the model's context of "
                    f"{self.context}: {self.tokenizer.decode(ids[:20])!r}..."
                )
        return encoded

    def _params(self, max_new_tokens: int, **options: Any) -> Any:
        """Sampling parameters that leave the distribution alone and end where the other engine ends."""
        return self._vllm.SamplingParams(
            max_tokens=max_new_tokens,
            stop_token_ids=sorted(self._ends),
            ignore_eos=True,  # the end tokens are those above, no others
            detokenize=False,
            **options,
        )

    def _generate(
        self, encoded: list[list[int]], params: list[Any], each: int, advance: Callable[[int], None] | None
    ) -> list[list[list[int]]]:
        """Token ids of the completions of each request; ``advance`` hears of every ``each`` that are finished."""
        if not encoded:
            return []
        requests = [{"prompt_token_ids": ids} for ids in encoded]
        bar: Any = _told(advance, each) if advance is not None else False
        outputs = self._model.generate(requests, params, use_tqdm=bar)
        return [[list(one.token_ids) for one in output.outputs] for output in outputs]

    def _cut(self, index: int, draws: list[list[int]], stop: Callable[[int, str], bool] | None) -> list[Completion]:
        """Draws of prompt ``index``, each ended at its first token that ends it; what draws share is read once."""
        read: dict[tuple[int, ...], tuple[str, bool]] = {}

        def at(tokens: tuple[int, ...], end: bool) -> tuple[str, bool]:
            if tokens not in read:
                text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                read[tokens] = text, not end and stop is not None and stop(index, text)
            return read[tokens]

        completions = []
        for ids in draws:
            shortest = 1 if stop is not None else len(ids)
            for length in range(shortest, len(ids) + 1):
                end = ids[length - 1] in self._ends
                text, stopped = at(tuple(ids[:length]), end)
                if end or stopped or length == len(ids):
                    completions.append(Completion(text, length, "eos" if end else "stop" if stopped else "length"))
                    break
        return completions

    def _refuse_nan(self, path: Path) -> None:
        """vLLM draws on from NaN without a word; one token's log probability shows it."""
        start = self.tokenizer("a").input_ids or [0]
        output = self._model.generate(
            [{"prompt_token_ids": start}], self._params(1, temperature=0.0, logprobs=0), use_tqdm=False
        )[0].outputs[0]
        if any(math.isnan(entry.logprob) for step in output.logprobs for entry in step.values()):
            raise NotFinite("NaN", str(path))


def end_tokens(path: Path, tokenizer: Any) -> frozenset[int]:
    """The ids that end a completion: the checkpoint's, as transformers reads them, and the tokenizer's."""
    from transformers import AutoConfig, GenerationConfig

    if (path / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(path, local_files_only=True)
    else:
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(path, local_files_only=True))
    configured = config.eos_token_id
    ends = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return frozenset(end for end in ends if end is not None)


def _log_prob(prompt: Sequence[Any], given: Sequence[int]) -> float:
    """The log-probability of the tokens ``given``, which stand last in a prompt that vLLM scored."""
    scored = prompt[len(prompt) - len(given) :]
    return math.fsum(entry[token].logprob for entry, token in zip(scored, given, strict=True))


def _seed(seed: int, key: str, number: int) -> int:
    """The seed of draw ``number`` in the stream of ``key``; halved, so that a stream may run on within 63 bits."""
    return (derive(seed, key) >> 1) + number


def _number_type(platform: Any) -> Any:
    """The type to compute in: vLLM's first choice, except on a processor that only emulates bfloat16."""
    if platform.is_cpu():
        import torch

        from knowshift.models.load import compute_dtype

        return compute_dtype(torch.device("cpu"))
    return platform.supported_dtypes[0]


def _told(advance: Callable[[int], None], each: int) -> Callable[..., Any]:
    """What vLLM takes for a progress bar, silent, passing on every ``each`` finished completions as one prompt."""

    def make(*iterable: Any, **options: Any) -> Any:
        if iterable:  # it reads the prompts first, with a bar of its own
            return iterable[0]
        bar = import_module("tqdm").tqdm(**{**options, "file": io.StringIO()})
        count, finished = bar.update, 0

        def update(n: int = 1) -> Any:
            nonlocal finished
            before, finished = finished, finished + n
            if done := finished // each - before // each:
                advance(done)
            return count(n)

        bar.update = update
        return bar

    return make


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
