"""Texts read as one row of distinct tokens: the states of each text alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from knowshift.generate.packed import LAID_OUT, as_texts, batches_of, can_pack, pack, packing, tokens_apart

TEXTS = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 9, 11, 12, 13], [5, 6, 9, 11, 20], [30], [30, 5, 6]]
IDS = st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=12).map(tuple), min_size=1, max_size=30)


@given(IDS)
def test_every_beginning_stands_once_and_every_text_can_be_read_off(texts):
    texts = sorted(texts)
    packed = pack(texts)
    distinct = {text[: end + 1] for text in texts for end in range(len(text))}
    assert packed.ids.shape == packed.positions.shape == (1, len(distinct)) == (1, tokens_apart(texts))
    for text, row in zip(texts, packed.places, strict=True):
        own = row[: len(text)]
        assert packed.ids[0, own].tolist() == list(text)
        assert packed.positions[0, own].tolist() == list(range(len(text)))
    assert packed.places.flatten()[packed.own].tolist() == list(range(len(distinct)))


@given(IDS, st.integers(1, 40))
def test_batches_hold_every_text_once_and_few_tokens(texts, tokens):
    found = batches_of(texts, tokens)
    assert sorted(index for members in found for index in members) == list(range(len(texts)))
    for members in found:
        own = [texts[index] for index in members]
        assert own == sorted(own)
        if len(members) > 1:
            assert tokens_apart(own) <= tokens
            assert max(map(len, own)) * len(own) <= LAID_OUT * tokens


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_states_are_those_of_each_text_alone(architecture):
    model = tiny.model(architecture)
    before = model.config._attn_implementation
    assert can_pack(model, 6)
    packed = pack(TEXTS)
    with torch.inference_mode(), packing(model), as_texts(packed):
        hidden = model.base_model(input_ids=packed.ids, position_ids=packed.positions).last_hidden_state[0]
    assert model.config._attn_implementation == before
    for text, row in zip(TEXTS, packed.places, strict=True):
        with torch.inference_mode():
            alone = model.base_model(input_ids=torch.tensor([text])).last_hidden_state[0]
        torch.testing.assert_close(hidden[row[: len(text)]], alone, rtol=1e-4, atol=1e-5)


def test_what_looks_elsewhere_is_not_packed():
    model = tiny.model("gemma3")
    window = model.config.sliding_window
    assert can_pack(model, window - 1) and not can_pack(model, window)
    model.set_attn_implementation("eager")
    assert not can_pack(model, 4)
