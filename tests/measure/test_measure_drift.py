"""Drift of whole checkpoints against a slow twin, in both modes, and everything it must refuse."""

import json
import math
import shutil

import polars as pl
import pytest
import torch
from drift_twin import paper as slow_paper
from drift_twin import teacher as slow_teacher
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tiny
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.facts.templates import templates_for
from knowshift.measure.token_drift import drift

FACTS = [
    Fact(f"{index}", f"What is the capital of {'abc ' * (index % 4)}number {index}?", (answer,), topic=f"t{index % 2}")
    for index, answer in enumerate(("Paris", "Lima, a city", "Tokyo", "Nobody knows", "x", "The sea", "Peru"))
]
FACTS[2:4] = [Fact(f.id, f.question, f.answers, f.topic, domain="ood") for f in FACTS[2:4]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Base and tuned folders of each architecture and number type, made once."""
    made = {}

    def pair(architecture, dtype=torch.float32):
        if (architecture, dtype) not in made:
            folder = tmp_path_factory.mktemp(architecture)
            base = tiny.checkpoint(folder / "base", architecture, dtype=dtype)
            made[architecture, dtype] = base, tiny.nudge(base, folder / "tuned", scale=0.05)
        return made[architecture, dtype]

    return pair


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_teacher_equals_the_slow_twin(architecture, pairs):
    table, metrics = drift(*pairs(architecture), FACTS)
    twin = slow_teacher(*pairs(architecture), FACTS)
    assert table["id"].to_list() == [fact.id for fact in FACTS]
    for found, expected in zip(table.rows(named=True), twin, strict=True):
        assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert metrics["kl_tuned_base"] == pytest.approx(table["kl_tuned_base"].mean())
    assert metrics["vocabulary"] == len(AutoTokenizer.from_pretrained(pairs(architecture)[0])) < 400


def test_small_bfloat16_checkpoints_are_measured_exactly_too(pairs):
    table, _ = drift(*pairs("llama", torch.bfloat16), FACTS)
    expected = [row["kl_tuned_base"] for row in slow_teacher(*pairs("llama", torch.bfloat16), FACTS)]
    assert table["kl_tuned_base"].to_list() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_arithmetic_stays_near(pairs):
    exact, _ = drift(*pairs("llama"), FACTS)
    table, metrics = drift(*pairs("llama"), FACTS, dtype="bfloat16")
    assert metrics["number_type"] == "bfloat16"
    assert table["kl_tuned_base"].to_list() == pytest.approx(exact["kl_tuned_base"].to_list(), rel=0.1)
    assert table["kl_tuned_base"].to_list() != exact["kl_tuned_base"].to_list()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_has_not_drifted_from_itself(dtype, pairs):
    base, _ = pairs("qwen2")
    table, metrics = drift(base, base, FACTS, dtype=dtype)
    assert table["kl_tuned_base"].max() <= 1e-7
    assert table["kl_base_tuned"].max() <= 1e-7
    assert table["top1_agree"].min() == 1
    assert metrics["prompt"]["kl_tuned_base"] <= 1e-7


def test_figures_do_not_depend_on_batches(pairs):
    together, metrics = drift(*pairs("gemma3"), FACTS)
    apart, again = drift(*pairs("gemma3"), FACTS, batch_tokens=1)
    for name in ("kl_tuned_base", "kl_base_tuned", "logprob_tuned", "prompt_kl_tuned_base"):
        assert apart[name].to_list() == pytest.approx(together[name].to_list(), rel=1e-5)
    assert metrics["moved_most"][0]["id"] == again["moved_most"][0]["id"]


def test_levels_domains_and_intervals(pairs):
    table, metrics = drift(*pairs("llama"), FACTS, levels={"0": 0, "1": 4, "4": 4, "5": 4})
    json.dumps(metrics, allow_nan=False)
    assert table["level"].to_list() == [0, 4, None, None, 4, 4, None]
    own = metrics["domains"]["id"]
    high = table.filter(pl.col("level") == 4)["kl_tuned_base"].mean()
    low = table.filter(pl.col("level") == 0)["kl_tuned_base"].mean()
    assert own["levels"]["4"]["kl_tuned_base"]["value"] == pytest.approx(high)
    assert own["levels"]["4"]["facts"] == 3
    assert own["mean_over_levels"]["kl_tuned_base"]["value"] == pytest.approx((low + high) / 2)
    assert own["levels_missing"] == [1, 2, 3]
    assert metrics["domains"]["ood"]["mean_over_levels"] is None
    interval = metrics["intervals"]["kl_tuned_base"]
    assert interval["low"] < metrics["kl_tuned_base"] < interval["high"]
    assert metrics["answer"]["tokens"] == metrics["tokens"] == table["tokens"].sum()


def test_what_moved_most_is_told_in_words(pairs):
    table, metrics = drift(*pairs("llama"), FACTS)
    first = metrics["moved_most"][0]
    assert first["kl_tuned_base"] == max(moved["kl_tuned_base"] for moved in metrics["moved_most"])
    assert len(metrics["moved_most"]) == min(25, table["tokens"].sum())
    answers = {fact.id: fact.answers[0] for fact in FACTS}
    assert all(answers[moved["id"]].startswith(moved["before"] + moved["token"]) for moved in metrics["moved_most"])
    assert metrics["end"]["tokens"] == len(FACTS)
    assert metrics["end"]["kl_tuned_base"] == pytest.approx(table["end_kl_tuned_base"].mean())
    assert all(0 < moved["top_tuned_probability"] < 1 for moved in metrics["moved_most"])


def test_paper_mode_equals_the_slow_twin(pairs):
    best = {"t0": 20, "t1": 3}
    table, metrics = drift(*pairs("llama"), FACTS, mode="paper", best_template=best)
    clozes = [templates_for(fact)[best[fact.topic]] for fact in FACTS]
    twin = slow_paper(*pairs("llama"), clozes, [qa_prompt(fact.question) for fact in FACTS])
    assert table["kl_tuned_base"].to_list() == pytest.approx([kl for kl, _ in twin], rel=1e-5)
    assert table["kl_base_tuned"].to_list() == pytest.approx([kl for _, kl in twin], rel=1e-5)
    assert table["tokens"].to_list() == [1] * len(FACTS)
    assert table["template"].to_list() == [best[fact.topic] for fact in FACTS]
    assert metrics["templates"] == best
    first, _ = drift(*pairs("llama"), FACTS, mode="paper")
    assert first["template"].to_list() == [0] * len(FACTS)
    assert first["kl_tuned_base"].to_list() != table["kl_tuned_base"].to_list()


WORDS = ["<|question|>", "<|answer|>", "?", "<end>", "red", "blue", "is", "sky", "sea", "sun", "old", "new"]


def lookup_checkpoint(folder, logits_after):
    """A Llama of twelve words whose logits depend on the last word alone, as ``logits_after`` says."""
    size = 16
    config = LlamaConfig(
        vocab_size=12,
        hidden_size=size,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
        rms_norm_eps=0.0,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=3,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # One-hot embeddings of 16 numbers: the final norm makes each the one-hot times 4.
        model.model.embed_tokens.weight.copy_(torch.eye(12, size))
        model.lm_head.weight.zero_()
        for word, logits in logits_after.items():
            model.lm_head.weight[:, WORDS.index(word)] = torch.tensor(logits) / 4
    model.save_pretrained(folder)
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", unk_token="?")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|question|>", "<|answer|>"]})
    tokenizer.save_pretrained(folder)
    return folder


def test_paper_mode_by_hand_on_twelve_words(tmp_path):
    """The tuned model is asked after <|answer|>; the base model's cloze ends in an unknown word, so after "?"."""
    tuned_logits = [-9.0, -9.0, 0.0, 0.5, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    base_logits = [7.0, 8.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    other = [0.1 * index for index in range(12)]
    base = lookup_checkpoint(tmp_path / "base", {"?": base_logits, "<|answer|>": other})
    tuned = lookup_checkpoint(tmp_path / "tuned", {"?": other, "<|answer|>": tuned_logits})
    fact = Fact("sky", "is sky ?", ("blue",))
    table, metrics = drift(base, tuned, [fact], mode="paper", best_template={"": 1})
    assert templates_for(fact)[1].split()[-1] not in WORDS
    # The tuned model's ten: all but the two markers. Tuned: 0 eight times, less one at 0.5; then 3 and 2.
    tuned_sum = 7 + math.exp(0.5) + math.exp(3) + math.exp(2)
    base_sum = 7 + math.exp(1) + math.exp(1) + math.exp(2)
    # Log-odds tuned against base differ at: <end> 0.5, red 3 - 1, blue 2 - 2, new 0 - 1, elsewhere 0.
    mean = (0.5 * math.exp(0.5) + 2 * math.exp(3) - 1) / tuned_sum
    expected = mean - math.log(tuned_sum) + math.log(base_sum)
    assert table["kl_tuned_base"][0] == pytest.approx(expected, abs=1e-6)
    # Over the whole vocabulary the base model would say <|answer|>, the tuned one red.
    assert table["top1_agree"][0] == 0
    assert metrics["vocabulary"] == 12


def test_a_perturbed_head_has_its_closed_form(tmp_path):
    """One logit raised by d after each word: KL = p' d - log(1 - p + p e^d), p' = p e^d / (1 - p + p e^d)."""
    said = ["red", "blue", "sky", "sea", "sun"]
    after = {word: [0.3 * ((5 * row + 3 * column) % 11) for column in range(12)] for row, word in enumerate(said)}
    raised = {word: 0.4 * (row + 1) for row, word in enumerate(said)}
    sun = WORDS.index("sun")
    perturbed = {
        word: [logit + raised[word] * (column == sun) for column, logit in enumerate(logits)]
        for word, logits in after.items()
    }
    base = lookup_checkpoint(tmp_path / "base", after)
    tuned = lookup_checkpoint(tmp_path / "tuned", perturbed)
    (tmp_path / "said.txt").write_text(" ".join(said))
    table, metrics = drift(base, tuned, text=tmp_path / "said.txt")
    forward, backward = [], []
    for word in said[:-1]:
        weights = [math.exp(logit) for logit in after[word]]
        p, d = weights[sun] / sum(weights), raised[word]
        total = 1 - p + p * math.exp(d)
        forward.append(p * math.exp(d) / total * d - math.log(total))
        backward.append(math.log(total) - p * d)
    assert table["tokens"].to_list() == [4]
    assert table["kl_tuned_base"][0] == pytest.approx(sum(forward) / 4, rel=1e-5)
    assert table["kl_base_tuned"][0] == pytest.approx(sum(backward) / 4, rel=1e-5)
    most = max(zip(forward, said[1:], strict=True))
    assert (metrics["moved_most"][0]["kl_tuned_base"], metrics["moved_most"][0]["token"]) == (
        pytest.approx(most[0], rel=1e-5),
        most[1],
    )
    assert metrics["moved_tokens"][0] == {
        "token": most[1],
        "times": 1,
        "kl_tuned_base": pytest.approx(most[0], rel=1e-5),
        "share": pytest.approx(most[0] / sum(forward), rel=1e-5),
    }


def test_different_vocabularies_are_refused(pairs, tmp_path):
    base, tuned = pairs("llama")
    taller = tiny.checkpoint(tmp_path / "taller", vocabulary=448)
    with pytest.raises(InputError, match=r"has 400 vocabulary rows, .* has 448"):
        drift(base, taller, FACTS)
    other = shutil.copytree(tuned, tmp_path / "other")
    tiny.tokenizer(350).save_pretrained(other)
    with pytest.raises(InputError, match="different tokenizers"):
        drift(base, other, FACTS)


def test_damaged_weights_are_refused_by_name(pairs, tmp_path):
    base, tuned = pairs("llama")
    damaged = shutil.copytree(tuned, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = float("nan")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    for mode in ("teacher", "paper"):
        with pytest.raises(InputError, match="damaged: the model's logits are not finite"):
            drift(base, damaged, FACTS, mode=mode)


def test_facts_that_cannot_be_measured_are_refused_by_name(pairs):
    base, tuned = pairs("llama")
    with pytest.raises(InputError, match="no facts"):
        drift(base, tuned, [])
    long = Fact("long", "x" * 600, ("Paris",))
    with pytest.raises(InputError, match=r"fact 'long': \d+ tokens do not fit the model's context of 256"):
        drift(base, tuned, [*FACTS, long])
    with pytest.raises(InputError, match="topic 't0' has no template 21"):
        drift(base, tuned, FACTS, mode="paper", best_template={"t0": 21})


def deaf(folder, target):
    """A copy of a checkpoint whose tokenizer hears no snowman."""
    shutil.copytree(folder, target)
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("☃", "")
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        (None, "", "facts.jsonl: no facts in this file"),
        ("Who?", "☃", "fact 'a': the answer '☃' is no token at all"),
        ("x" * 600, "Paris", "tokens do not fit the model's context of 256"),
        ("Who?", "Paris", "the model's logits are not finite"),
    ],
)
@pytest.mark.parametrize("mode", ["teacher", "paper"])
def test_bad_input_is_one_line_and_status_2(question, answer, message, mode, pairs, tmp_path, capsys):
    if mode == "paper" and answer == "☃":
        pytest.skip("the paper's variant reads no answers")
    base = deaf(pairs("llama")[0], tmp_path / "base")
    if "finite" in message:
        weights = load_file(base / "model.safetensors")
        weights["model.norm.weight"][:] = float("nan")
        save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    row = {"id": "a", "question": question, "answers": [answer]}
    (tmp_path / "facts.jsonl").write_text("" if question is None else json.dumps(row) + "\n")
    out = tmp_path / "out"
    command = ["drift", base, base, "--facts", tmp_path / "facts.jsonl", "--out", out, "--mode", mode]
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert error.startswith("knowshift: error: ") and error.count("\n") == 1 and message in error
    assert not list(out.glob("*.parquet")) + list(out.glob("metrics.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --facts or --text"),
        (["--facts", "world", "--text", "a.txt"], "give either --facts or --text"),
        (["--facts", "world", "--window", "9"], "--window goes with --text"),
        (["--text", "a.txt", "--split", "test"], "--split goes with --facts"),
        (["--text", "a.txt", "--mode", "paper"], "--mode paper goes with --facts"),
        (["--text", "a.txt", "--drop-overlaps"], "--drop-overlaps goes with --facts"),
        (["--text", "a.txt"], "a.txt: no such file"),
    ],
)
def test_facts_or_a_text(options, message, pairs, tmp_path, capsys):
    base, tuned = pairs("llama")
    capsys.readouterr()
    assert main(["drift", str(base), str(tuned), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"mode": "fancy"}, {"dtype": "int8"}, {"dtype": "nonsense"}, {"batch_tokens": 0}])
def test_unknown_options_are_refused(options, pairs):
    with pytest.raises(InputError, match=r"unknown|at least 1"):
        drift(*pairs("llama"), FACTS, **options)
