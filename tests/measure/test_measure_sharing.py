"""Positions that read the same tokens stand once, and that changes no figure."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from knowshift.facts.fact import Fact
from knowshift.measure.passages import Passage, gold_passages
from knowshift.measure.sharing import layout
from knowshift.measure.states import final_states

FACTS = [
    Fact(f"{start} {name}", f"{start} {name}?", (name[::-1],))
    for start in ("What is the capital of", "Who wrote")
    for name in ("a", "bb", "Peru", "Nobody", "xyz")
]
IDS = st.lists(st.integers(2, 4), min_size=1, max_size=12)


def whole(ids, last=1):
    return Passage(tuple(ids), len(ids), (*ids[1:], last), 1)


@settings(deadline=None)
@given(st.lists(st.tuples(IDS, st.integers(1, 2)), min_size=1, max_size=30))
def test_a_row_stands_for_all_positions_that_read_and_foretell_the_same(texts):
    passages = [whole(ids, last) for ids, last in texts]
    found = layout(passages)
    positions = [(p.ids[: place + 1], p.targets[place]) for p in passages for place in range(p.kept)]
    assert len(found.rows) == len(positions)
    said = {}
    for row, position in zip(found.rows.tolist(), positions, strict=True):
        assert said.setdefault(row, position) == position
    assert sorted(said) == list(range(found.starts[-1]))
    # As few rows as there are different positions, but for passages that say nothing of their own.
    empty = len(passages) - len({(passage.ids, passage.targets) for passage in passages})
    inside = sum(
        any(other.ids[: len(p.ids)] == p.ids and other.targets[: len(p.ids)] == p.targets for other in passages)
        for p in passages
    )
    assert len(set(positions)) <= found.starts[-1] <= len(set(positions)) + empty + inside


def test_ends_alone_share_nothing():
    found = layout([Passage((5, 6, 7), 1), Passage((5, 6, 8), 1)])
    assert (found.skipped, found.starts, found.rows.tolist()) == ((0, 0), (0, 1, 2), [0, 1])


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_states_are_those_of_each_passage_alone(architecture, tmp_path):
    model = tiny.model(architecture)
    passages = gold_passages(tiny.tokenizer(), FACTS)
    found = layout(passages)
    states = final_states(model, passages, tmp_path / "s", batch_tokens=100, label="model", shared=found)
    assert len(states) == found.starts[-1] < 0.8 * len(found.rows)
    with torch.inference_mode():
        plain = [model.base_model(input_ids=torch.tensor([p.ids])).last_hidden_state[0] for p in passages]
    torch.testing.assert_close(states[found.rows], torch.cat(plain), rtol=1e-4, atol=1e-5)
