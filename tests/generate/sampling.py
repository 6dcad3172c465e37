"""What the sampler's tests share: a toy model small enough to enumerate, chi-square tests, samplers that are wrong.

The toy is a real transformers model over seven tokens, one of which ends the text, so that every continuation of
a few tokens and its exact probability can be listed by plain forward passes in double precision.
"""

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from knowshift.generate.engine import Completion, Prompt
from knowshift.generate.transformers_engine import TransformersEngine

TOKENS = ("<end>", "a", "b", "c", "d", "e", "f")
LEAST = 8.0  # cells expected to hold fewer draws are pooled: below about five the chi-square law is not to be trusted

Outcome = tuple[str, str]  # text and finish


def outcome(draw: Completion) -> Outcome:
    return draw.text, draw.finish


def toy_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({token: index for index, token in enumerate(TOKENS)}, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<end>")


def toy_model(architecture: str = "llama", *, seed: int = 0) -> Any:
    """Random weights, scaled so that next tokens are uneven and depend on all that came before."""
    torch.manual_seed(seed)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if architecture == "gpt2":
        config = GPT2Config(vocab_size=7, n_embd=16, n_layer=2, n_head=2, n_positions=64, **ends)
        model = GPT2LMHeadModel(config).eval()
    else:
        config = LlamaConfig(
            vocab_size=7,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            **ends,
        )
        model = LlamaForCausalLM(config).eval()
    enliven(model, 12.0)
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        head.mul_(1.3 / (head.std() * 4))  # states are normalised to length four before the head
    return model


def enliven(model: Any, factor: float) -> None:
    """Scale the blocks' matrices: as initialised they are so small that a model repeats its last token."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name and "wte" not in name and "wpe" not in name:
                parameter.mul_(factor)


def toy(architecture: str = "llama", *, rows: int = 64) -> TransformersEngine:
    return TransformersEngine(toy_model(architecture), toy_tokenizer(), rows=rows)


def enumerate_outcomes(
    engine: TransformersEngine,
    text: str,
    *,
    temperature: float,
    length: int,
    stop: Callable[[str], bool] | None = None,
) -> dict[Outcome, float]:
    """The exact probability of every outcome, each prefix read from its beginning in double precision."""
    twin = copy.deepcopy(engine.model).double()
    ids = engine.tokenizer(text).input_ids
    open_prefixes: dict[tuple[int, ...], float] = {(): 1.0}
    outcomes: Counter[Outcome] = Counter()
    for step in range(1, length + 1):
        batch = torch.tensor([ids + list(prefix) for prefix in open_prefixes])
        with torch.no_grad():
            chances = torch.softmax(twin(batch).logits[:, -1] / temperature, -1).tolist()
        grown: dict[tuple[int, ...], float] = {}
        for (prefix, weight), row in zip(open_prefixes.items(), chances, strict=True):
            for token, chance in enumerate(row):
                said = engine.tokenizer.decode([*prefix, token], skip_special_tokens=True)
                if token == 0:
                    outcomes[said, "eos"] += weight * chance
                elif stop is not None and stop(said):
                    outcomes[said, "stop"] += weight * chance
                elif step == length:
                    outcomes[said, "length"] += weight * chance
                else:
                    grown[*prefix, token] = weight * chance
        open_prefixes = grown
    assert abs(sum(outcomes.values()) - 1) < 1e-9
    return dict(outcomes)


def fit(observed: Iterable[Hashable], expected: Mapping[Any, float]) -> float:
    """p-value of the chi-square test of draws against known probabilities; 0 if an impossible outcome was drawn."""
    counts = Counter(observed)
    total = counts.total()
    if any(outcome not in expected for outcome in counts):
        return 0.0
    large = [outcome for outcome, chance in expected.items() if chance * total >= LEAST]
    found = [counts[outcome] for outcome in large]
    wanted = [expected[outcome] * total for outcome in large]
    if total - sum(wanted) >= 1:  # what is rare, taken together
        found.append(total - sum(found))
        wanted.append(total - sum(wanted))
    assert len(found) > 3, "too few cells to tell samplers apart"
    return float(stats.chisquare(found, np.array(wanted) * total / sum(wanted)).pvalue)


def same_law(left: Iterable[Hashable], right: Iterable[Hashable]) -> float:
    """p-value of the two-sample chi-square test: are both drawn from one distribution?"""
    one, two = Counter(left), Counter(right)
    large = [outcome for outcome in one | two if one[outcome] + two[outcome] >= 2 * LEAST]
    table = [[counts[outcome] for outcome in large] for counts in (one, two)]
    for row, counts in zip(table, (one, two), strict=True):
        row.append(counts.total() - sum(row))
    return _contingency(np.array(table))


def independent(left: Sequence[Hashable], right: Sequence[Hashable], cells: int = 6) -> float:
    """p-value of the contingency test of paired outcomes: does one tell anything of the other?"""
    common = [outcome for outcome, _ in Counter([*left, *right]).most_common(cells)]
    place = {outcome: index for index, outcome in enumerate(common)}
    table = np.zeros((cells + 1, cells + 1), int)
    for a, b in zip(left, right, strict=True):
        table[place.get(a, cells), place.get(b, cells)] += 1
    return _contingency(table)


def _contingency(table: np.ndarray) -> float:
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    assert min(table.shape) > 1 and table.size > 4, "too few cells to tell samplers apart"
    return float(stats.chi2_contingency(table).pvalue)


class Wrong:
    """A sampler that is wrong in one way, around an engine that is right; draws as ``TransformersEngine`` does."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.model, self.tokenizer = engine, engine.model, engine.tokenizer

    def sample(self, prompts: Sequence[Prompt], **options: Any) -> list[list[Completion]]:
        raise NotImplementedError


class OneNumberForAll(Wrong):
    """All draws of a prompt share their random numbers."""

    def sample(self, prompts, *, samples, **options):
        return [draws * samples for draws in self.engine.sample(prompts, samples=1, **options)]


class EveryOtherAgain(Wrong):
    """Each second draw repeats the one before: every draw by itself has the right law."""

    def sample(self, prompts, *, samples, **options):
        drawn = self.engine.sample(prompts, samples=(samples + 1) // 2, **options)
        return [[draw for draw in draws for _ in (0, 1)][:samples] for draws in drawn]


class OneKeyForAll(Wrong):
    """Prompts do not have streams of their own."""

    def sample(self, prompts, **options):
        return self.engine.sample([Prompt(prompt.text, "") for prompt in prompts], **options)


class Sorted(Wrong):
    """The right draws in an order that depends on what they say."""

    def sample(self, prompts, **options):
        return [sorted(draws, key=outcome) for draws in self.engine.sample(prompts, **options)]


class NoTemperature(Wrong):
    """Temperature is ignored."""

    def sample(self, prompts, *, temperature, **options):
        return self.engine.sample(prompts, temperature=1.0, **options)


class WarmerByATenth(Wrong):
    """Temperature is slightly off."""

    def sample(self, prompts, *, temperature, **options):
        return self.engine.sample(prompts, temperature=1.1 * temperature, **options)


class LastTokenByArgmax(Wrong):
    """The last token is the likeliest one, not a draw."""

    def sample(self, prompts, *, max_new_tokens, **options):
        drawn = self.engine.sample(prompts, max_new_tokens=max_new_tokens - 1, **options)
        return [
            [self._end(prompt, draw) if draw.finish == "length" else draw for draw in draws]
            for prompt, draws in zip(prompts, drawn, strict=True)
        ]

    def _end(self, prompt: Prompt, draw: Completion) -> Completion:
        if not hasattr(self, "ends"):
            self.ends: dict[str, Completion] = {}
        text = f"{prompt.text} {draw.text}"
        if text not in self.ends:
            self.ends[text] = self.engine.greedy([text], max_new_tokens=1)[0]
        last = self.ends[text]
        return Completion(f"{draw.text} {last.text}".strip(), draw.tokens + 1, last.finish)


class GoesOnAtTheEnd(Wrong):
    """The end token is never drawn."""

    def sample(self, prompts, *, samples, **options):
        drawn = self.engine.sample(prompts, samples=4 * samples, **options)
        return [[draw for draw in draws if draw.finish != "eos"][:samples] for draws in drawn]


class Nucleus(Wrong):
    """Plain ``generate`` that cuts the tail of the distribution."""

    def sample(self, prompts, *, samples, temperature, max_new_tokens, seed):
        return [
            by_generate(self.engine, prompt.text, samples, temperature, max_new_tokens, seed, top_p=0.95)
            for prompt in prompts
        ]


def by_generate(
    engine: TransformersEngine,
    text: str,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    **options: Any,
) -> list[Completion]:
    """Draws by plain transformers."""
    torch.manual_seed(seed)
    inputs = engine.tokenizer(text, return_tensors="pt")
    whole = engine.model.generate(
        input_ids=inputs.input_ids,
        attention_mask=inputs.attention_mask,
        do_sample=True,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        num_return_sequences=samples,
        **({"top_k": 0, "top_p": 1.0} | options),
    )
    end = engine.tokenizer.eos_token_id
    completions = []
    for tokens in whole[:, inputs.input_ids.shape[1] :].tolist():
        length = tokens.index(end) + 1 if end in tokens else len(tokens)
        said = engine.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        completions.append(Completion(said, length, "eos" if end in tokens else "length"))
    return completions
