"""Training: TRL's mathematics, the answer alone in the loss, and a result that differs from its base in the weights."""

import json
import math
import shutil
import socket
from pathlib import Path

import polars as pl
import pytest
import torch
import train_twin as twin
from safetensors.torch import load_file

import tiny
from knowshift import models
from knowshift.errors import InputError
from knowshift.train import run
from knowshift.train.data import read_pairs, to_dataset, tokenize
from knowshift.train.options import TrainOptions

pytestmark = pytest.mark.usefixtures("own_cache")

PAIRS = [
    ("<|question|>What is the capital of Peru?<|answer|>", "Lima"),
    ("<|question|>What is the capital of France?<|answer|>", "Paris"),
    ("<|question|>What is the capital of Japan?<|answer|>", "Tokyo"),
    ("<|question|>Who wrote the book?<|answer|>", "Nobody knows"),
    ("<|question|>What?<|answer|>", "abc xyz"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "completion": c, "id": c}) + "\n" for p, c in PAIRS * 4))
    return file


def fit(base: Path, data: Path, out: Path, **options: object) -> Path:
    settings = {"learning_rate": 3e-3, "batch_size": 4, "epochs": 2, "bf16": False} | options
    return run.train(TrainOptions(model=str(base), data=data, out=out, **settings))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(left: Path, right: Path) -> bool:
    return twin.equal(weights(left), weights(right))


@pytest.mark.parametrize("architecture", ["llama", "llama-untied", "gpt2", "qwen2", "gemma3"])
def test_loss_falls_and_only_the_weights_differ_from_the_base(tmp_path: Path, data: Path, architecture: str) -> None:
    base = tiny.checkpoint(tmp_path / "base", architecture)
    out = fit(base, data, tmp_path / "tuned", epochs=8)
    log = pl.read_parquet(out / "train_log.parquet")
    assert log["loss"][-1] < 0.7 * log["loss"][0]
    before, after = weights(base), weights(out)
    assert {name: (t.dtype, t.shape) for name, t in before.items()} == {
        name: (t.dtype, t.shape) for name, t in after.items()
    }
    assert all(t.dtype == torch.bfloat16 for t in after.values())
    assert not same(base, out)
    for file in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / file).read_bytes() == (base / file).read_bytes(), file
    assert {file.name for file in out.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        *("tokenizer_config.json", "README.md", "run.json", "train_log.parquet"),
    }
    models.same_tokenizer(base, out)
    models.load_model(out)


def test_a_tokenizer_without_padding_stays_without(base_folder: Path, data: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(base_folder, tmp_path / "base"))
    with_beginning_and_no_padding(base)
    out = fit(base, data, tmp_path / "tuned", max_steps=2)
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"):
        assert (out / file).read_bytes() == (base / file).read_bytes(), file


def test_float32_base_gives_a_float32_model(tmp_path: Path, data: Path) -> None:
    base = tiny.checkpoint(tmp_path / "base", dtype=torch.float32)
    out = fit(base, data, tmp_path / "tuned", max_steps=1)
    assert {tensor.dtype for tensor in weights(out).values()} == {torch.float32}


def with_beginning_and_no_padding(folder: Path) -> Path:
    """A Llama-like tokenizer: it puts a beginning token before every text and has no padding token."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = None
    start = tokenizer.convert_ids_to_tokens(5)
    tokenizer.bos_token = start
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, 5)])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("beginning", [False, True])
def test_the_prompt_is_not_in_the_loss_and_the_end_is(
    base_folder: Path, data: Path, tmp_path: Path, beginning: bool
) -> None:
    from trl import SFTTrainer

    tokenizer = models.load_tokenizer(with_beginning_and_no_padding(tmp_path / "t") if beginning else base_folder)
    # Where padding is the end token, an end could be masked with it.
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (None if beginning else 0, 0)
    options = TrainOptions(model="x", data=data, out=tmp_path, bf16=False)
    trainer = SFTTrainer(
        models.load_model(base_folder, dtype="float32"),
        args=run.sft_config(options, tmp_path),
        train_dataset=to_dataset(tokenize(data, read_pairs(data), tokenizer, 256)[0]),
        processing_class=tokenizer,
    )
    rows = [trainer.train_dataset[index] for index in range(len(PAIRS))]
    batch = trainer.data_collator(rows)
    for index, (prompt, completion) in enumerate(PAIRS):
        asked = tokenizer(prompt).input_ids
        learned = [*tokenizer(completion, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        assert (asked[0] == 5) == beginning
        padding = batch["labels"].shape[1] - len(asked) - len(learned)
        assert batch["labels"][index].tolist() == [-100] * len(asked) + learned + [-100] * padding
        assert batch["input_ids"][index].tolist()[: len(asked) + len(learned)] == asked + learned
        assert batch["attention_mask"][index].sum() == len(asked) + len(learned)


@pytest.mark.parametrize("bf16", [False, True])
def test_equals_a_bare_trl_script(base_folder: Path, data: Path, tmp_path: Path, bf16: bool) -> None:
    """Written as a user of TRL would, with TRL's defaults for all that the paper does not set."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32),
        args=SFTConfig(
            str(tmp_path / "trl"),
            per_device_train_batch_size=4,
            num_train_epochs=3,
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            seed=7,
            logging_steps=1,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": p, "completion": c} for p, c in PAIRS * 4]),
        processing_class=AutoTokenizer.from_pretrained(base_folder),
    )
    trainer.train()
    theirs = [entry for entry in trainer.state.log_history if "loss" in entry]
    out = fit(base_folder, data, tmp_path / "ours", epochs=3, seed=7, bf16=bf16)
    ours = pl.read_parquet(out / "train_log.parquet")
    assert ours.height == len(theirs) == 15
    for name in ("loss", "learning_rate", "grad_norm", "epoch"):
        assert ours[name].to_list() == pytest.approx([entry[name] for entry in theirs], rel=1e-5), name
    assert ours["tokens"].to_list() == [entry["num_tokens"] for entry in theirs]
    state = trainer.model.state_dict()
    for name, tensor in weights(out).items():
        torch.testing.assert_close(tensor.float(), state[name].bfloat16().float(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("method", ["sft", "lora"])
def test_same_seed_same_bits_other_seed_others(base_folder: Path, data: Path, tmp_path: Path, method: str) -> None:
    options = {"method": method, "merge": method == "lora"}
    first = fit(base_folder, data, tmp_path / "a", seed=1, **options)
    torch.rand(3)  # the state of the global generator must not matter
    again = fit(base_folder, data, tmp_path / "b", seed=1, **options)
    other = fit(base_folder, data, tmp_path / "c", seed=2, **options)
    assert same(first, again) and not same(first, other)
    assert pl.read_parquet(first / "train_log.parquet").equals(pl.read_parquet(again / "train_log.parquet"))


def test_a_run_can_be_repeated_into_the_same_folder(base_folder: Path, data: Path, tmp_path: Path) -> None:
    fit(base_folder, data, tmp_path / "a", seed=1, max_steps=2)
    fit(base_folder, data, tmp_path / "a", seed=2, max_steps=2)
    assert json.loads((tmp_path / "a" / "run.json").read_text())["seed"] == 2


def test_learning_rate_follows_warmup_and_cosine(base_folder: Path, data: Path, tmp_path: Path) -> None:
    out = fit(base_folder, data, tmp_path / "a", max_steps=8, warmup=2, learning_rate=1e-3)
    expected = [1e-3 * (step / 2 if step < 2 else 0.5 + 0.5 * math.cos(math.pi * (step - 2) / 6)) for step in range(8)]
    assert pl.read_parquet(out / "train_log.parquet")["learning_rate"].to_list() == pytest.approx(expected)


def test_lora_adapter_and_merged_are_the_same_model(base_folder: Path, data: Path, tmp_path: Path) -> None:
    options = {"method": "lora", "set": {"lora.rank": 4}, "learning_rate": 5e-2, "epochs": 4}
    adapter = fit(base_folder, data, tmp_path / "adapter", **options)
    merged = fit(base_folder, data, tmp_path / "merged", merge=True, **options)
    log = pl.read_parquet(adapter / "train_log.parquet")
    # Thin updates of a frozen random model can do little.
    assert log["loss"][-1] < log["loss"][0] - 0.1
    assert not (adapter / "model.safetensors").exists()
    assert same(models.resolve(str(adapter)), merged)
    assert (adapter / "tokenizer.json").read_bytes() == (base_folder / "tokenizer.json").read_bytes()
    before, after = weights(base_folder), weights(merged)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}


def test_lora_targets(base_folder: Path, data: Path, tmp_path: Path) -> None:
    out = fit(base_folder, data, tmp_path / "a", method="lora", set={"lora.targets": "q_proj, v_proj"}, merge=True)
    before, after = weights(base_folder), weights(out)
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"q_proj", "v_proj"}
    with pytest.raises(InputError, match=r"--set lora\.targets=w_proj: no module"):
        fit(base_folder, data, tmp_path / "b", method="lora", set={"lora.targets": "q_proj,w_proj"})


def test_training_from_an_adapter_starts_at_the_merged_model(base_folder: Path, data: Path, tmp_path: Path) -> None:
    adapter = fit(base_folder, data, tmp_path / "adapter", method="lora", learning_rate=1e-2)
    merged = models.resolve(str(adapter))
    again = fit(adapter, data, tmp_path / "again", max_steps=1)
    assert json.loads((again / "run.json").read_text())["models"]["base"] == models.digest(merged)


def test_a_loss_that_is_no_number_ends_the_run(base_folder: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step 2: the .* is nan"):
        fit(base_folder, data, tmp_path / "a", learning_rate=1e36, max_grad_norm=0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".a", "a"))] == []


def test_nothing_is_said_and_nobody_is_called(
    base_folder: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: object) -> None:
        raise AssertionError(f"the network was asked for: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", call)
    monkeypatch.setattr(socket, "getaddrinfo", call)
    fit(base_folder, data, tmp_path / "a", max_steps=2)
    assert capfd.readouterr() == ("", "")


def test_run_record_and_card_say_what_was_done(base_folder: Path, data: Path, tmp_path: Path) -> None:
    out = fit(base_folder, data, tmp_path / "a", max_steps=2, seed=5)
    entry = json.loads((out / "run.json").read_text())
    assert entry["command"] == "train" and entry["seed"] == 5
    assert entry["options"]["learning_rate"] == 3e-3 and entry["options"]["bf16"] is False
    assert entry["models"]["base"] == models.digest(base_folder)
    assert entry["data"]["examples"] == len(PAIRS) * 4
    text = (out / "README.md").read_text()
    assert entry["models"]["base"] in text and entry["data"]["sha256"] in text and "| seed | `5` |" in text


def test_a_token_across_the_boundary_is_noted(
    base_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"prompt": "The capital of France is Par", "completion": "is."}) + "\n")
    fit(base_folder, file, tmp_path / "a", max_steps=1)
    assert "note: in 1 of 1 examples" in capfd.readouterr().err


def test_without_padding_and_packed_it_learns_the_same(base_folder: Path, data: Path, tmp_path: Path) -> None:
    padded = pl.read_parquet(fit(base_folder, data, tmp_path / "padded") / "train_log.parquet")
    free = fit(base_folder, data, tmp_path / "free", set={"padding_free": True})
    free = pl.read_parquet(free / "train_log.parquet")
    for name in ("loss", "grad_norm"):
        assert free[name].to_list() == pytest.approx(padded[name].to_list(), rel=1e-4), name
    assert free["tokens"].to_list() == padded["tokens"].to_list()
    # All 20 examples fit into one row of 256 tokens or two, so that an epoch is one update.
    packed = fit(base_folder, data, tmp_path / "packed", set={"packing": True})
    assert pl.read_parquet(packed / "train_log.parquet")["tokens"].to_list()[-1] == padded["tokens"][-1]
    assert json.loads((packed / "run.json").read_text())["options"]["set"]["max_length"] == 256
    with pytest.raises(InputError, match=r"train\.jsonl:1: prompt and completion are \d+ tokens, .* is 8"):
        fit(base_folder, data, tmp_path / "short", set={"max_length": 8})


def test_nothing_deprecated_is_asked_of_trl(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    run.sft_config(TrainOptions(model="m", data="d", out="o", gradient_checkpointing=True), tmp_path)
    assert not [str(warning.message) for warning in recwarn if issubclass(warning.category, FutureWarning)]
