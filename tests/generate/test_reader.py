"""Prompts read packed are those read one by one: logits, keys and values, log-probabilities of what follows."""

import pytest
import torch

import tiny
from knowshift.generate import reader as module
from knowshift.generate.given import Given
from knowshift.generate.packed import as_texts, pack, packing
from knowshift.generate.reader import Reader
from knowshift.generate.slots import plain_cache

BEGUN = [5, 6, 7, 8, 9]
# Ascending in length, as they are read; two alike, one that goes on as another began.
PROMPTS = [[*BEGUN, 11], [*BEGUN, 12], [*BEGUN, 11, 13], [*BEGUN, 11, 13], [*BEGUN, 14, 15, 16], [*BEGUN, 12, 5, 6, 7]]
GIVEN = [[20], [21, 22, 23], [20, 5], [], [5, 6, 7, 8], [30]]
MEMBERS = list(range(len(PROMPTS)))
LONGEST = max(map(len, PROMPTS))


def read(model: torch.nn.Module, most: int = 100) -> tuple[Reader, torch.Tensor, object, list[float]]:
    made, given = Reader(model), Given(GIVEN)
    with torch.inference_mode():
        logits, slots = made.read(MEMBERS, PROMPTS, given, most=most, samples=2, limit=4)
    return made, logits, slots, given.log_probs


@torch.inference_mode()
def check(model: torch.nn.Module, logits: torch.Tensor, log_probs: list[float]) -> None:
    """Each prompt alone, in one plain pass."""
    for prompt, follows, row, found in zip(PROMPTS, GIVEN, logits, log_probs, strict=True):
        alone = model(torch.tensor([[*prompt, *follows]])).logits[0, len(prompt) - 1 :]
        torch.testing.assert_close(row, alone[0], rtol=1e-3, atol=1e-4)
        chances = alone.double().log_softmax(-1)
        total = sum(chances[place, token].item() for place, token in enumerate(follows))
        assert found == pytest.approx(total, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("worth", [1, 10_000], ids=["begun apart", "all in packs"])
@pytest.mark.parametrize("most", [1, 100], ids=["a few", "all"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_packed_is_as_alone(architecture: str, worth: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORTH_SHARING", worth)
    monkeypatch.setattr(module, "LOGIT_BYTES", 16)
    model = tiny.model(architecture)
    made, logits, slots, log_probs = read(model, most)
    assert made._alike
    check(model, logits, log_probs)
    for number, prompt in enumerate(PROMPTS):
        with torch.inference_mode():
            alone = made.forward(torch.tensor([prompt])).past_key_values
        for layer, expected in zip(slots.cache.layers, alone.layers, strict=True):
            for buffer, states in zip(layer._buffers, (expected.keys, expected.values), strict=True):
                assert buffer.shape[0] == 2 * len(PROMPTS) and buffer.shape[2] == LONGEST + 4
                own = buffer[number, :, LONGEST - len(prompt) : LONGEST]
                torch.testing.assert_close(own, states[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(tiny.ZOO))
def test_every_architecture_that_is_packed_is_read_right(kind: str) -> None:
    model = tiny.specimen(kind).float().eval()
    made = Reader(model)
    with torch.inference_mode():
        packs = made._can_pack([tuple(prompt) for prompt in PROMPTS])
    if not packs:
        pytest.skip("read by length")
    _, logits, _, log_probs = read(model)
    check(model, logits, log_probs)


def test_a_model_that_packed_would_say_something_else_is_not_packed() -> None:
    """It looks at the token before, which in a packed row may be another text's."""
    model = tiny.model()
    model.base_model.layers[0].register_forward_hook(
        lambda _, __, out: out + out.roll(1, dims=1) * (torch.arange(out.shape[1]) > 0)[:, None]
    )
    made, logits, _, log_probs = read(model)
    assert made._alike is False
    check(model, logits, log_probs)


def test_every_token_is_read_once_and_no_logits_are_made_in_vain() -> None:
    model, tokens, rows = tiny.model(), [], []
    made, given = Reader(model), Given(GIVEN)
    with torch.inference_mode():
        assert made._can_pack([tuple(prompt) for prompt in PROMPTS])
        model.model.register_forward_pre_hook(
            lambda _, __, given: tokens.append(given["input_ids"].numel()), with_kwargs=True
        )
        model.lm_head.register_forward_hook(lambda _, __, out: rows.append(out.shape[1]))
        made.read(MEMBERS, PROMPTS, given, most=100, samples=1, limit=1)
    texts = [(*prompt, *follows[:-1]) for prompt, follows in zip(PROMPTS, GIVEN, strict=True)]
    assert tokens == [len({text[: end + 1] for text in texts for end in range(len(text))})]
    assert rows == [sum(max(1, len(follows)) for follows in GIVEN)]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_what_was_read_before_is_seen(architecture: str) -> None:
    model = tiny.model(architecture)
    texts = sorted(PROMPTS)[:1] + sorted(PROMPTS)[2:]
    packed = pack(texts, len(BEGUN))
    assert packed.start == len(BEGUN)
    assert packed.ids.tolist() == pack(texts).ids[:, len(BEGUN) :].tolist()
    with torch.inference_mode():
        common = model(torch.tensor([BEGUN]), use_cache=True).past_key_values
        with packing(model), as_texts(packed):
            cache = plain_cache(model.config, common)
            hidden = model.base_model(
                input_ids=packed.ids, position_ids=packed.positions, past_key_values=cache, use_cache=True
            ).last_hidden_state[0]
        for text, row in zip(texts, packed.places, strict=True):
            alone = model.base_model(input_ids=torch.tensor([text])).last_hidden_state[0, len(BEGUN) :]
            own = hidden[row[len(BEGUN) : len(text)] - len(BEGUN)]
            torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-5)
