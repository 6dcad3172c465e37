"""Two real processes, launched as a user does, train what one process trains: copies, and a divided model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from safetensors.torch import load_file

import tiny
from commands import run
from knowshift.errors import InputError
from knowshift.train import processes

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
WORDS = ["Lima", "Paris", "Tokyo", "Quito", "Cairo", "Accra", "Seoul", "Delhi", "Rome"]
# With 18 lines and batches of 8 the last batch of an epoch has two: a micro-batch of one process alone, partly filled.
METHODS = {
    "sft": ["--set", "gradient_accumulation_steps=2"],
    "lora": ["--method", "lora", "--set", "lora.rank=4"],
    "l2-sp": ["--method", "l2-sp", "--set", "l2-sp.weight=20", "--set", "train_sampling_strategy=sequential"],
}


def launch(config: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes under a shipped configuration."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / config]
    start += ["--num_processes", "2", "--main_process_port", "0", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    environment = {name: value for name, value in environment.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        [str(part) for part in start], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 base, so that nothing of a difference is rounded away, and examples of several lengths."""
    folder = tmp_path_factory.mktemp("scale")
    import torch

    tiny.checkpoint(folder / "base", "llama-untied", dtype=torch.float32)
    lines = [
        {"prompt": f"<|question|>{'Where? ' * (1 + n % 3)}<|answer|>", "completion": w} for n, w in enumerate(WORDS)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines * 2))
    return folder


def commands(place: Path, name: str) -> list[list[str]]:
    common = [place / "base", "--data", place / "train.jsonl", "--fp32", "--learning-rate", "1e-3", "--epochs", "2"]
    return [
        [str(part) for part in ("train", *common, "--out", place / f"{name}-{method}", *options)]
        for method, options in METHODS.items()
    ]


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """Trained by one process."""
    for command in commands(place, "one"):
        assert run(*command) == 0
    return place


def launched(place: Path, name: str, config: str, *as_gpus: str) -> None:
    file = place / f"{name}.json"
    file.write_text(json.dumps(commands(place, name)))
    done = launch(config, ROOT / "tests" / "launched.py", file, *as_gpus)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
def test_two_processes_train_what_one_does(alone: Path, way: str) -> None:
    launched(alone, way, f"{way}.yaml", *(["--as-gpus"] if way == "fsdp2" else []))
    for method in METHODS:
        ours, theirs = (alone / f"{name}-{method}" for name in (way, "one"))
        log, expected = (pl.read_parquet(folder / "train_log.parquet") for folder in (ours, theirs))
        assert log.height == expected.height == 6
        for column in ("loss", "learning_rate", "grad_norm", "epoch"):
            assert log[column].to_list() == pytest.approx(expected[column].to_list(), rel=1e-5), (method, column)
        entry = json.loads((ours / "run.json").read_text())
        assert (entry["processes"], entry["divided"]) == (2, way == "fsdp2")
        assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
        (file,) = (path.name for path in ours.glob("*.safetensors"))
        weights, wanted, base = (
            load_file(ours / file),
            load_file(theirs / file),
            load_file(alone / "base/model.safetensors"),
        )
        assert weights.keys() == wanted.keys()
        far = max(float((weights[name] - wanted[name]).abs().max()) for name in wanted)
        moved = max(float((wanted[name] - base.get(name, 0)).abs().max()) for name in wanted)
        assert far < 2e-3 * moved, (method, far, moved)
    left = [path.name for path in alone.iterdir() if path.name.startswith(".")]
    assert left == []  # one process wrote, and cleared up


def test_what_stops_one_process_stops_all_and_is_said_once(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Q", "completion": "A"}\n{"prompt": "Q"}\n')
    out = tmp_path / "out"
    done = launch(
        "ddp.yaml", "-m", "knowshift", "train", place / "base", "--data", tmp_path / "bad.jsonl", "--out", out
    )
    assert done.returncode != 0 and not out.exists()
    said = [line for line in done.stderr.splitlines() if line.startswith("knowshift: error")]
    assert len(said) == 1 and f"{tmp_path}/bad.jsonl:2: " in said[0]


@pytest.mark.parametrize(
    ("batch", "accumulation", "world", "share"),
    [(8, 1, 1, 8), (8, 2, 2, 2), (8, 1, 8, 1), (8, 3, 1, None), (6, 2, 2, None)],
)
def test_a_batch_is_what_one_update_sees(
    monkeypatch: pytest.MonkeyPatch, batch: int, accumulation: int, world: int, share: int | None
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    if share is not None:
        assert processes.share_of(batch, accumulation) == share
    else:
        with pytest.raises(InputError, match=rf"--batch-size {batch}: .* take a multiple of {world * accumulation}$"):
            processes.share_of(batch, accumulation)


def test_alone_everything_passes() -> None:
    with pytest.raises(InputError, match="once"), processes.joined(1), processes.together():
        raise InputError("once")
    assert processes.leads() and processes.count() == 1 and not processes.shards() and not processes.receives()


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_configurations_are_accelerates(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(file))
    assert config.num_processes == 8 and config.mixed_precision == "no"
    known = {action.dest for action in launch_command_parser()._actions}
    given = yaml.safe_load(file.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        assert given.get(section, {}).keys() <= known, section


def test_one_that_is_killed_does_not_leave_the_other_waiting(place: Path, tmp_path: Path) -> None:
    """It would wait for half an hour; the launcher ends it."""
    out = tmp_path / "out"
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, signal\n"
        "from knowshift.cli import main\n"
        "from knowshift.train.trainer import Trainer\n"
        "step, done = Trainer.training_step, []\n"
        "def dying(self, *rest, **more):\n"
        "    done.append(1)\n"
        "    if len(done) == 3 and os.environ['RANK'] == '1':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, *rest, **more)\n"
        "Trainer.training_step = dying\n"
        f"main(['train', {str(place / 'base')!r}, '--data', {str(place / 'train.jsonl')!r}, '--out', {str(out)!r}])\n"
    )
    done = launch("ddp.yaml", script)
    assert done.returncode != 0 and "SIGKILL" in done.stderr and not out.exists()
