"""Options by name: --set, a YAML file, flags; TRL's settings beside ours; what may not be set."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from transformers import SchedulerType

from commands import refused, run
from knowshift.cli.options import Scheduler
from knowshift.errors import InputError
from knowshift.train import trl_settings
from knowshift.train.methods import METHODS, load
from knowshift.train.settings import gathered, parse_set

FLAGS = {"model": "m", "data": Path("d"), "out": Path("o")}
# What is given for the base, the data and the folder does not matter: all of this is checked before they are read.
COMMAND = ("train", "m", "--data", "d.jsonl", "--out", "o")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optim=adafactor", "adafactor"),
        ("gradient_accumulation_steps=4", 4),
        ("packing=true", True),
        ("packing=True", True),
        ("adam_beta2=0.95", 0.95),
        ('lr_scheduler_kwargs={"num_cycles": 2}', {"num_cycles": 2}),
        ("data_seed=null", None),
        ("run_name=7", "7"),
        ("report_to=[]", []),
        ("max_length=128", 128),
    ],
)
def test_settings_of_trl_have_their_own_types(text: str, value: object) -> None:
    found = gathered(FLAGS, [text]).set[text.partition("=")[0]]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("num_train_epochs=3", "epochs", 3),
        ("epochs=3", "epochs", 3),
        ("per_device_train_batch_size=2", "batch_size", 2),
        ("batch_size=2", "batch_size", 2),
        ("lr_scheduler_type=cosine_with_restarts", "scheduler", "cosine_with_restarts"),
        ("warmup_steps=0.1", "warmup", 0.1),
        ("activation_checkpointing=true", "gradient_checkpointing", True),
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("max_steps=5", "max_steps", 5),
        ("seed=5", "seed", 5),
    ],
)
def test_what_has_a_name_here_is_that_option(text: str, name: str, value: object) -> None:
    options = gathered(FLAGS, [text])
    assert getattr(options, name) == value and options.set == {}


def test_options_of_methods() -> None:
    options = gathered(FLAGS | {"method": "lora"}, ["lora.rank=4", "lora.targets=q_proj,v_proj"])
    shown = options.settings()["set"]
    assert shown["lora.rank"] == 4 and shown["lora.targets"] == "q_proj,v_proj"
    assert set(shown) == {f"lora.{option}" for option in load("lora").model_fields}  # those not given as well


def test_flags_go_before_the_file_and_so_does_set(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "learning_rate: 1e-3\nnum_train_epochs: 2\nbatch_size: 3\nmethod: lora\nlora:\n  rank: 4\n  alpha: 8\n"
        "optim: adafactor\nlr_scheduler_kwargs: {num_cycles: 2}\n"
    )
    options = gathered(FLAGS | {"epochs": 5.0, "lora.alpha": 9.0}, ["per_device_train_batch_size=7"], file)
    assert (options.learning_rate, options.epochs, options.batch_size, options.method) == (1e-3, 5.0, 7, "lora")
    assert options.set == {
        "lora.rank": 4,
        "lora.alpha": 9.0,
        "optim": "adafactor",
        "lr_scheduler_kwargs": {"num_cycles": 2},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "c.yaml:1: not valid YAML"),
        ("- 1", "options by name are expected, found list"),
        ("epochs: 1\nnum_train_epochs: 2\n", "epochs is given twice"),
        ("lerning_rate: 1\n", "did you mean learning_rate"),
        ("learning_rate: fast\n", "--learning-rate"),
        ("lora: {rank: 4}\n", "has no effect with --method sft"),
        ("output_dir: here\n", "--out says where"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(InputError) as caught:
        gathered(FLAGS, [], tmp_path / "c.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        gathered(FLAGS, [], tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("optm=adafactor",), "--set optm: unknown; did you mean optim"),
        (("zzzzzzz=1",), "--set zzzzzzz: unknown"),
        (("optim",), "KEY=VALUE is expected"),
        (("=1",), "KEY=VALUE is expected"),
        (("output_dir=x",), "--out says where"),
        (("completion_only_loss=false",), "the loss is on the answer alone"),
        (("save_steps=4.5",), "--save-steps"),
        (("eval_strategy=steps",), "train evaluates nothing"),
        (("hub_model_id=x",), "nothing is uploaded"),
        (("trust_remote_code=true",), "never with code of its own"),
        (("logging_steps=5",), "train_log.parquet holds every step"),
        (("gradient_accumulation_steps=two",), "--set gradient_accumulation_steps=two: Input should be a valid"),
        (("gradient_accumulation_steps=0",), "must be at least 1"),
        (("epochs=1", "num_train_epochs=2"), "--set num_train_epochs: given twice"),
        (("lora.rank=4",), "has no effect with --method sft"),
        (("sft.rank=4",), "sft has no options"),
        (("lr_scheduler_type=reduce_lr_on_plateau",), "--scheduler"),
    ],
)
def test_what_cannot_be_set_is_one_line(given: tuple[str, ...], message: str, capsys: pytest.CaptureFixture) -> None:
    line = refused(capsys, *COMMAND, *(word for text in given for word in ("--set", text)))
    assert message in line, line


def test_a_flag_and_set_for_the_same(capsys: pytest.CaptureFixture) -> None:
    line = refused(capsys, *COMMAND, "--epochs", "2", "--set", "num_train_epochs=3")
    assert "--set num_train_epochs: given twice" in line
    line = refused(capsys, *COMMAND, "--method", "lora", "--lora-rank", "2", "--set", "lora.rank=3")
    assert "--set lora.rank: given twice" in line


def test_every_setting_of_trl_is_free_reserved_or_ours() -> None:
    from dataclasses import fields

    from trl import SFTConfig

    names = {field.name for field in fields(SFTConfig)}
    free = set(trl_settings.fields())
    assert free | {name for name in names if trl_settings.reserved(name)} == names
    assert set(trl_settings.ALIASES) | {"optim", "packing", "loss_type", "neftune_noise_alpha", "deepspeed"} <= free
    # A reservation for a setting that TRL has no more would be dead.
    for group in trl_settings._RESERVED.values():
        assert all(any(name.startswith(entry) for name in names) for entry in group)


def test_the_schedulers_are_those_of_transformers() -> None:
    from typing import get_args

    from knowshift.train.options import SCHEDULERS

    assert {entry.value for entry in Scheduler} == set(get_args(SCHEDULERS))
    # The others need an evaluation set.
    assert {entry.value for entry in SchedulerType} - set(get_args(SCHEDULERS)) == {"reduce_lr_on_plateau", "greedy"}


def test_values_are_json_where_they_are() -> None:
    assert parse_set("a=b=c") == ("a", "b=c")
    assert parse_set("a=") == ("a", "")
    assert parse_set('a="1"') == ("a", "1")


def test_methods_are_listed_without_anything_else(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run("train", "--methods") == 0
    shown = capsys.readouterr().out
    for name in METHODS:
        method = load(name)
        assert name in shown and method.title in shown and method.source in shown
        assert all(f"{name}.{option}={field.default}" in shown for option, field in method.model_fields.items())


@pytest.fixture(scope="module")
def runs(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``first`` by --set, ``again`` from what its run.json says, ``plain`` with defaults."""
    folder = tmp_path_factory.mktemp("runs")
    data = folder / "d.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Q{i}", "completion": f"A{i}"}) + "\n" for i in range(16)))
    command = ("train", base_folder, "--data", data, "--out")
    given = {
        "learning_rate": "1e-3",
        "gradient_accumulation_steps": "2",
        "lr_scheduler_type": "cosine_with_restarts",
        "lr_scheduler_kwargs": '{"num_cycles": 2}',
        "optim": "sgd",
        "bf16": "false",
        "per_device_train_batch_size": "2",
    }
    sets = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    assert run(*command, folder / "first", *sets) == 0
    assert run(*command, folder / "again", "--config", folder / "first" / "run.json") == 0
    assert run(*command, folder / "plain", "--learning-rate", "1e-3", "--fp32", "--batch-size", "2") == 0
    return folder


def test_settings_reach_the_trainer(runs: Path) -> None:
    log, plain = (pl.read_parquet(runs / name / "train_log.parquet") for name in ("first", "plain"))
    assert log.height == 4 and plain.height == 8
    # Two cycles of two steps each: from the top to half of it, twice.
    assert log["learning_rate"].to_list() == pytest.approx([1e-3, 5e-4, 1e-3, 5e-4])
    weights = [(runs / name / "model.safetensors").read_bytes() for name in ("first", "plain")]
    assert weights[0] != weights[1]


def test_a_run_can_be_repeated_from_its_record(runs: Path) -> None:
    first, again = (json.loads((runs / name / "run.json").read_text())["options"] for name in ("first", "again"))
    assert {**first, "out": ""} == {**again, "out": ""}
    assert first["set"]["optim"] == "sgd" and first["scheduler"] == "cosine_with_restarts"
    for name in ("model.safetensors", "train_log.parquet"):
        assert (runs / "first" / name).read_bytes() == (runs / "again" / name).read_bytes()


def test_the_card_names_every_setting(runs: Path) -> None:
    text = (runs / "first" / "README.md").read_text()
    assert "| optim | `sgd` |" in text and "| lr_scheduler_kwargs | `{'num_cycles': 2}` |" in text
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "transformers"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("optim=adamax_of_nobody", "is not a valid OptimizerNames"),
        ("optim=galore_adamw", "optim"),
        ('lr_scheduler_kwargs={"waves": 2}', "waves"),
        ("fp16=true", "fp16"),
        ("loss_type=hinge", "hinge"),
    ],
)
def test_what_trl_refuses_is_one_line(
    base_folder: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture, given: str, message: str
) -> None:
    command = ("train", base_folder, "--data", runs / "d.jsonl", "--out", tmp_path / "o", "--bf16", "--set", given)
    line = refused(capsys, *command)
    assert message in line and "--set" in line
    assert not list(tmp_path.iterdir())


def test_the_batch_of_a_device_times_the_steps_of_an_update_is_ours() -> None:
    options = gathered(FLAGS, ["gradient_accumulation_steps=3", "per_device_train_batch_size=2"])
    assert options.batch_size == 6
    assert trl_settings.sft_config(options, Path("x")).per_device_train_batch_size == 2
    with pytest.raises(InputError, match=r"--batch-size 8: .* take a multiple of 3"):
        trl_settings.sft_config(gathered(FLAGS, ["gradient_accumulation_steps=3"]), Path("x"))
