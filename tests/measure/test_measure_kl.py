"""Divergences of logits against float64 and closed forms, and heads that do what the whole model does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from transformers import AutoConfig, AutoModelForCausalLM

import tiny
from knowshift.errors import InputError
from knowshift.measure.kl import divergence, top_divergence
from knowshift.measure.passages import Passage
from knowshift.measure.states import final_states, take_head


def test_divergence_equals_scipy_in_float64():
    generator = torch.Generator().manual_seed(0)
    base = 4 * torch.randn(20, 500, generator=generator)
    tuned = base + 0.05 * torch.randn(20, 500, generator=generator)
    targets = torch.randint(500, (20,), generator=generator)
    found = divergence(base, tuned, targets)
    left, right = (log_softmax(side.double().numpy(), axis=-1) for side in (base, tuned))
    rows = np.arange(20)
    np.testing.assert_allclose(found.tuned_base, (np.exp(right) * (right - left)).sum(-1), rtol=1e-9)
    np.testing.assert_allclose(found.base_tuned, (np.exp(left) * (left - right)).sum(-1), rtol=1e-9)
    np.testing.assert_allclose(found.target_base, left[rows, targets], rtol=1e-12)
    np.testing.assert_allclose(found.target_tuned, right[rows, targets], rtol=1e-12)
    np.testing.assert_array_equal(found.top_base, left.argmax(-1))
    np.testing.assert_allclose(found.top_tuned_logprob, right.max(-1), rtol=1e-12)


@given(
    st.integers(2, 40),
    st.floats(0.1, 60),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**31),
)
def test_divergence_is_never_negative_and_zero_for_equals(size, scale, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    base, tuned = (scale * torch.randn(3, size, generator=generator).to(dtype) for _ in range(2))
    targets = torch.zeros(3, dtype=torch.long)
    found = divergence(base, tuned, targets)
    assert bool((found.tuned_base >= 0).all())
    assert bool((found.base_tuned >= 0).all())
    back = divergence(tuned, base, targets)
    torch.testing.assert_close(found.tuned_base, back.base_tuned)
    assert float(divergence(base, base, targets).tuned_base.max()) == 0


def test_far_apart_distributions_stay_finite():
    base, tuned = torch.zeros(1, 4), torch.tensor([[300.0, 0.0, 0.0, -300.0]])
    found = divergence(base, tuned, torch.tensor([3]))
    assert float(found.tuned_base) == pytest.approx(np.log(4))
    # Uniform against one certain token: mean log-ratio of (300, 0, 0, -300) less 300, with the sign turned.
    assert float(found.base_tuned) == pytest.approx(300 - np.log(4))


def test_one_raised_logit_has_a_closed_form():
    """KL of a distribution with one logit raised by d: p' d - log(1 - p + p e^d), p' the new probability."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(8, 50, generator=generator)
    raised = base.clone()
    raised[:, 7] += 1.5
    p = base.double().softmax(-1)[:, 7]
    total = 1 - p + p * np.exp(1.5)
    found = divergence(base, raised, torch.full((8,), 7))
    torch.testing.assert_close(found.tuned_base, p * np.exp(1.5) / total * 1.5 - total.log(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.base_tuned, total.log() - 1.5 * p, rtol=1e-6, atol=0)


def test_top_divergence_by_hand():
    tuned = torch.tensor([[3.0, 1.0, 2.0, -1.0, 0.0]])
    base = torch.tensor([[0.0, 5.0, 1.0, 9.0, 0.0]])
    forward, backward = top_divergence(base, tuned, top=2)
    # The tuned model's two best are tokens 0 and 2: logits (3, 2) against (0, 1), so odds e : 1 against 1 : e.
    p = np.e / (1 + np.e)
    assert float(forward) == pytest.approx(p * 1 + (1 - p) * -1)
    assert float(backward) == pytest.approx(p * 1 + (1 - p) * -1)
    assert float(top_divergence(base, tuned)[0]) == pytest.approx(
        float(divergence(base, tuned, torch.tensor([0])).tuned_base)
    )


COMMON = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# Each does something of its own after the last block: soft-capping, scaling by a setting or by a number kept on
# the body, a bias, a decoder inside the body, a projection, outputs of its own kind, no attention at all.
SPECIAL = {
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 0.2},
    "granite": {"logits_scaling": 3.0},
    "cohere2": {"head_dim": 8, "logit_scale": 0.3},
    "falcon_h1": {"head_dim": 8, "lm_head_multiplier": 0.5, "mamba_chunk_size": 8},
    "phi": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16},
    "mixtral": {"num_local_experts": 4},
    "gpt_neox": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "mamba": {"state_size": 8},
}


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *SPECIAL])
def test_states_and_head_give_the_logits_of_the_whole_model(architecture, tmp_path):
    if architecture in SPECIAL:
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **COMMON, **SPECIAL[architecture])
        model = AutoModelForCausalLM.from_config(config).eval()
    else:
        model = tiny.model(architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    lengths = (9, 4, 7, 9, 1)
    passages = [Passage(tuple(torch.randint(3, 300, (length,)).tolist()), kept=min(length, 3)) for length in lengths]
    with torch.inference_mode():
        expected = torch.cat([model(torch.tensor([p.ids])).logits[0, -p.kept :] for p in passages])
    states = final_states(model, passages, tmp_path / "states", batch_tokens=20, label="model")
    head = take_head(model)
    torch.testing.assert_close(head(states), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head(states[3:5]), expected[3:5], rtol=1e-5, atol=1e-5)


def test_taking_the_head_frees_the_body():
    untied = tiny.model("llama-untied")
    take_head(untied)
    assert sum(parameter.numel() for parameter in untied.model.parameters()) == 0
    tied = tiny.model("llama")
    take_head(tied)
    assert {name for name, value in tied.named_parameters() if value.numel()} == {"model.embed_tokens.weight"}


def test_a_model_that_cannot_be_divided_is_refused(tmp_path):
    class Mixed(type(tiny.model("llama"))):
        """Its logits also depend on the tokens themselves, which states alone do not tell."""

        def forward(self, input_ids=None, **options):
            output = super().forward(input_ids=input_ids, **options)
            output.logits = output.logits + self.calls
            self.calls += 1
            return output

    model = Mixed(tiny.model("llama").config).eval()
    model.calls = 0
    with pytest.raises(InputError, match="Mixed: the head of this architecture cannot be run apart"):
        take_head(model)
