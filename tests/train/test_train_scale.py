"""Two real processes, launched as a user does, train what one process trains: copies, and a divided model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

import tiny
from commands import refused, run
from knowshift.errors import InputError
from knowshift.train import processes
from knowshift.train.checkpoints import last_in

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
LAUNCHED = str(ROOT / "tests" / "launched.py")
WORDS = ["Lima", "Paris", "Tokyo", "Quito", "Cairo", "Accra", "Seoul", "Delhi", "Rome"]


def sets(method: str, **options: object) -> list[str]:
    return [word for name, value in options.items() for word in ("--set", f"{method}.{name}={value}")]


ANCHOR = sets("kl-anchor", weight=2)
# With 18 lines and batches of 8 the last batch of an epoch has two: a micro-batch of one process alone, partly filled.
METHODS = {
    "sft": ["--set", "gradient_accumulation_steps=2"],
    "lora": ["--method", "lora", "--set", "lora.rank=4"],
    "l2-sp": ["--method", "l2-sp", "--set", "l2-sp.weight=20", "--set", "train_sampling_strategy=sequential"],
    "kl-anchor": ["--method", "kl-anchor", *ANCHOR],
    "kl-anchor-texts": ["--method", "kl-anchor", *ANCHOR, *sets("kl-anchor", data="texts.txt", batch=2, length=9)],
    "lora+kl-anchor": ["--method", "lora+kl-anchor", "--set", "lora.rank=4", *ANCHOR],
    "top-gradient": ["--method", "top-gradient", "--set", "top-gradient.share=0.1"],
    "settle": ["--method", "settle", *sets("settle", texts=4, tokens=6, steps=5)],
    "self-distill": ["--method", "self-distill", *sets("self-distill", by="answer", temperature=1, max_new_tokens=200)],
}
# Each micro-batch has its texts: two of one process are as one of each of two.
ALONE = {"kl-anchor-texts": ["--set", "gradient_accumulation_steps=2"]}
# What trains a model that is divided, too.
DIVIDED = [method for method in METHODS if "kl-anchor" not in method]
# Killed and gone on with: a method that keeps a state of its own, in each process.
KILLED = "top-gradient"


def launch(config: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes under a shipped configuration."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / config]
    start += ["--num_processes", "2", "--main_process_port", "0", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    environment = {name: value for name, value in environment.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        [str(part) for part in start], env=environment, capture_output=True, text=True, timeout=600, check=False
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
    (folder / "texts.txt").write_text(" ".join(tiny.CORPUS))
    return folder


def command(place: Path, out: str, method: str, *more: object) -> list[str]:
    common = [place / "base", "--data", place / "train.jsonl", "--fp32", "--learning-rate", "1e-3", "--epochs", "2"]
    options = [text.replace("texts.txt", str(place / "texts.txt")) for text in METHODS[method]]
    return [str(part) for part in ("train", *common, "--out", place / out, *options, *more)]


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """Trained by one process."""
    for method in METHODS:
        assert run(*command(place, f"one-{method}", method, *ALONE.get(method, []))) == 0
    return place


def launched(place: Path, way: str, commands: list[list[str]], script: object) -> subprocess.CompletedProcess[str]:
    file = place / f"{way}.json"
    file.write_text(json.dumps(commands))
    return launch(f"{way}.yaml", script, file, *(["--as-gpus"] if way == "fsdp2" else []))


DYING = """
import os, pathlib, runpy, signal, sys, threading, time
def die():
    while not any(pathlib.Path({place!r}).glob(".{out}.*.checkpoints/checkpoint-2")):
        time.sleep(0.003)
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ["RANK"] == "1":
    threading.Thread(target=die, daemon=True).start()
runpy.run_path({launched!r}, run_name="__main__")
"""


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def killed(place: Path, request: pytest.FixtureRequest) -> str:
    """A run one of whose processes was killed: the other does not wait for it, though it would for half an hour."""
    way, out = request.param, f"{request.param}-killed"
    script = place / f"{way}-dying.py"
    script.write_text(DYING.format(place=str(place), out=out, launched=LAUNCHED))
    done = launched(place, way, [command(place, out, KILLED, "--save-steps", 1)], script)
    assert done.returncode != 0 and "SIGKILL" in done.stderr and not (place / out).exists()
    assert last_in(next(place.glob(f".{out}.*.checkpoints"))) is not None
    return way


def test_two_processes_train_what_one_does(alone: Path, killed: str) -> None:
    way, place = killed, alone
    methods = [*METHODS] if way == "ddp" else DIVIDED
    again = command(place, f"{way}-killed", KILLED, "--save-steps", 1)
    done = launched(place, way, [again, *(command(place, f"{way}-{method}", method) for method in methods)], LAUNCHED)
    assert done.returncode == 0, done.stderr[-3000:]
    for method in methods:
        ours, theirs = (place / f"{name}-{method}" for name in (way, "one"))
        log, expected = (pl.read_parquet(folder / "train_log.parquet") for folder in (ours, theirs))
        assert log.height == expected.height == 6
        for column in ("loss", "learning_rate", "grad_norm"):
            assert log[column].to_list() == pytest.approx(expected[column].to_list(), rel=1e-5), (method, column)
        if "kl_anchor" in log.columns:
            assert log["kl_anchor"].to_list() == pytest.approx(expected["kl_anchor"].to_list(), rel=2e-3, abs=1e-7)
        entry = json.loads((ours / "run.json").read_text())
        assert (entry["processes"], entry["divided"]) == (2, way == "fsdp2")
        assert {file.name for file in ours.iterdir()} == {file.name for file in theirs.iterdir()}
        far, moved = apart(ours, theirs, place / "base")
        assert far < 2e-3 * moved, (method, far, moved)
    written = [(place / f"{name}-self-distill" / "examples.jsonl").read_text() for name in ("one", way)]
    assert written[0] == written[1] and '"by": "base"' in written[0]
    # What was killed and went on is the undisturbed run, to the last bit.
    went_on, whole = place / f"{way}-killed", place / f"{way}-{KILLED}"
    assert json.loads((went_on / "run.json").read_text())["resumed_at"] >= 2
    assert apart(went_on, whole, place / "base")[0] == 0
    assert_frame_equal(
        *(pl.read_parquet(folder / "train_log.parquet") for folder in (went_on, whole)), check_exact=True
    )
    left = [path.name for path in place.iterdir() if path.name.startswith(".") and way in path.name]
    assert left == []  # one process wrote, and cleared up


def apart(ours: Path, theirs: Path, base: Path) -> tuple[float, float]:
    """The largest difference of a weight between two results, and the largest of one of them from the base."""
    (file,) = (path.name for path in ours.glob("*.safetensors"))
    weights, wanted, start = (load_file(path) for path in (ours / file, theirs / file, base / "model.safetensors"))
    assert weights.keys() == wanted.keys()
    far = max(float((weights[name] - wanted[name]).abs().max()) for name in wanted)
    return far, max(float((wanted[name] - start.get(name, 0)).abs().max()) for name in wanted)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in DIVIDED])
def test_what_cannot_train_a_divided_model_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    said = refused(capsys, *command(place, "refused", method))
    assert f"--method {METHODS[method][1]}: not where the model is divided among processes" in said
    assert not (place / "refused").exists()


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
