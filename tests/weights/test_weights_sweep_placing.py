"""Stretches of tensors that are views of others, read and written as if they lay in one piece."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knowshift.weights import placing

VIEWS = {
    "whole": lambda whole: whole,
    "one of a stack": lambda whole: whole[1],
    "half of each": lambda whole: whole[:, 2:5],
    "turned": lambda whole: whole.transpose(0, 2),
    "columns": lambda whole: whole[0, :, 1:4],
    "every other": lambda whole: whole.reshape(-1)[::2],
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(VIEWS)), st.sampled_from(sorted(placing.TYPES)), st.data())
def test_a_stretch_of_a_view_is_that_of_its_copy(view: str, dtype: str, data) -> None:
    whole = torch.arange(3 * 6 * 7).reshape(3, 6, 7).to(placing.TYPES[dtype])
    untouched, place = whole.clone(), VIEWS[view](whole)
    start = data.draw(st.integers(0, place.numel()))
    stop = data.draw(st.integers(start, place.numel()))
    copy = place.clone(memory_format=torch.contiguous_format).view(-1)
    found = placing.values_of(placing.read(place, start, stop), dtype)
    assert torch.equal(found, copy[start:stop])
    values = -torch.arange(stop - start).to(placing.TYPES[dtype]) - 1
    bits = placing.read(values, 0, values.numel())
    placing.write(place, start, bits, dtype)
    copy[start:stop] = values
    assert torch.equal(place.reshape(-1), copy)
    assert placing.holds(place, start, bits, dtype)
    if stop > start:
        assert not placing.holds(place, start, np.bitwise_xor(bits, 64), dtype)
    assert int((whole != untouched).sum()) == stop - start


def test_models_loaded_without_gradients_can_be_written() -> None:
    with torch.inference_mode():
        model = torch.nn.Linear(4, 3)
    places = placing.Places(model)
    assert places.stored.keys() == places.own.keys() == {"weight", "bias"}
    placing.write(places.find("weight", (3, 4)), 2, np.zeros(5, np.uint32), "F32")
    assert not model.weight.view(-1)[2:7].any() and model.weight.view(-1)[:2].all()
