"""``kill -9`` at any moment of training, and the same command: the bits of a run that nobody disturbed."""

import gc
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from filelock import FileLock
from polars.testing import assert_frame_equal

import tiny
from commands import refused
from knowshift.errors import InputError
from knowshift.files import digest_file
from knowshift.train import resumable, run
from knowshift.train.checkpoints import Checkpoints, disk_watched, last_in
from knowshift.train.methods.method import Keeper
from knowshift.train.methods.sft import Sft
from knowshift.train.options import TrainOptions

# Two passes in another order each, updates of two micro-batches, one short at the end of a pass.
COMMON = ("--fp32", "--batch-size", "4", "--epochs", "2", "--learning-rate", "3e-3", "--save-steps", "2", "--seed", "3")
SETS = ("gradient_accumulation_steps=2", "optim=adamw_torch")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with dropout in float32, so that the random state matters and no bit is rounded off."""
    folder = tiny.checkpoint(tmp_path_factory.mktemp("base") / "m", "gpt2", dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text())
    assert config["resid_pdrop"] == 0.1
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "d.jsonl"
    rows = [{"prompt": f"Question {i}: ", "completion": f"answer {i * i}"} for i in range(22)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Real processes, forked from one that has imported everything, so that they start at once."""
    context = multiprocessing.get_context("forkserver")
    loaded = ("knowshift.cli", "knowshift.train.trainer", "transformers.models.gpt2.modeling_gpt2")
    context.set_forkserver_preload([*loaded])
    return context


def main(arguments: list[str]) -> None:
    from knowshift.cli import main

    gc.freeze()  # what is imported is not garbage: accelerate looks through all of it
    torch.set_num_threads(1)
    os._exit(main(arguments))


class Job:
    """One command in a process of its own."""

    def __init__(self, processes, base: Path, data: Path, out: Path, *flags: str) -> None:
        sets = [word for text in SETS for word in ("--set", text)]
        arguments = ["train", str(base), "--data", str(data), "--out", str(out), *COMMON, *sets, *flags]
        self.out = out
        self.process = processes.Process(target=main, args=(arguments,))
        self.process.start()

    def end(self) -> int:
        self.process.join(120)
        return self.process.exitcode

    def stop(self, how: signal.Signals, moment: Callable[[], bool]) -> int:
        while self.process.is_alive() and not moment():
            time.sleep(0.003)
        os.kill(self.process.pid, how)
        return self.end()


def hidden(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{out.name}.*"))


def steps_in(out: Path) -> int:
    """The step of the last whole checkpoint."""
    found = [last_in(folder) for folder in out.parent.glob(f".{out.name}.*.checkpoints")]
    return max((int(path.name.rpartition("-")[2]) for path in found if path), default=0)


def writes(out: Path) -> bool:
    return any(out.parent.glob(f".{out.name}.*.checkpoints/partial/checkpoint-*/*"))


def trains_on(out: Path) -> bool:
    """Some steps after a checkpoint was written."""
    time.sleep(0.2)
    return not writes(out)


def same(left: Path, right: Path, adapter: bool) -> None:
    logs = [pl.read_parquet(folder / "train_log.parquet") for folder in (left, right)]
    assert_frame_equal(*logs, check_exact=True)
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    assert (left / name).read_bytes() == (right / name).read_bytes()
    assert {file.name for file in left.iterdir()} == {file.name for file in right.iterdir()}


@pytest.mark.parametrize("method", ["sft", "lora"])
def test_killed_at_many_moments_it_ends_with_the_same_bits(
    processes, base: Path, data: Path, tmp_path: Path, method: str
) -> None:
    flags = ("--method", method, *(("--lora-dropout", "0.2") if method == "lora" else ()))
    whole = Job(processes, base, data, tmp_path / "whole", *flags)
    assert whole.end() == 0 and not hidden(whole.out)
    assert pl.read_parquet(whole.out / "train_log.parquet").height == 12
    out, seen = tmp_path / "killed", []
    moments = [
        lambda: writes(out),  # the first checkpoint is half written
        lambda: steps_in(out) >= 4,
        lambda: steps_in(out) >= 4 and writes(out),  # the next one is
        lambda: steps_in(out) >= 10,
    ]
    for moment in moments if method == "sft" else moments[1:2]:
        assert Job(processes, base, data, out, *flags).stop(signal.SIGKILL, moment) == -signal.SIGKILL
        assert not out.exists()
        seen.append(steps_in(out))
    assert method == "lora" or (len(set(seen)) >= 3 and seen[-1] >= 10), seen
    assert Job(processes, base, data, out, *flags).end() == 0
    same(whole.out, out, adapter=method == "lora")
    assert not hidden(out)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_asked_to_end_it_keeps_the_step_it_is_at(
    processes, base: Path, data: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    # By itself it would save again at step 60.
    flags = ("--save-steps", "30", "--epochs", "40")
    assert Job(processes, base, data, out, *flags).stop(how, lambda: steps_in(out) >= 30 and trains_on(out)) == code
    assert not out.exists() and not (out.parent / f".{out.name}.lock").exists()
    assert 30 < steps_in(out) < 60


def test_a_full_disk_leaves_the_checkpoint_before(processes, base: Path, data: Path, tmp_path: Path) -> None:
    whole = Job(processes, base, data, tmp_path / "whole")
    assert whole.end() == 0
    out = tmp_path / "out"
    Job(processes, base, data, out).stop(signal.SIGKILL, lambda: steps_in(out) >= 4)
    before = steps_in(out)
    context = processes.Process(target=with_little_room, args=(base, data, out, str(tmp_path / "said")))
    context.start()
    context.join(120)
    said = (tmp_path / "said").read_text()
    assert context.exitcode == 2 and said.count("\n") == 1, said
    assert "the disk is full; the checkpoint before this one is whole" in said
    assert steps_in(out) == before and not out.exists()
    assert Job(processes, base, data, out).end() == 0
    same(whole.out, out, adapter=False)


def with_little_room(base: Path, data: Path, out: Path, said: str) -> None:
    """No file may grow beyond 100 kB: what the system then says is what it says of a full disk, but for one number."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    sets = [word for text in SETS for word in ("--set", text)]
    main(["train", str(base), "--data", str(data), "--out", str(out), *COMMON, *sets])


class Counted(Sft):
    """A method with a keeper whose effect depends on all the steps before."""

    title, source = "Counted", "this test"

    def keeper(self, run: object) -> Keeper:
        return Counter(0)


class Counter(Keeper):
    def __init__(self, stop_at: int) -> None:
        self.stop_at, self.steps, self.total, self.begun = stop_at, 0, torch.zeros(()), False

    def begin(self, model, optimizer) -> None:
        self.begun = True

    def loss(self, model, inputs, items):
        return 1e-3 * self.total * next(model.parameters()).square().mean()

    def after_update(self, model, learning_rate: float) -> None:
        self.total = self.total + learning_rate * 1000
        self.steps += 1
        if self.steps == self.stop_at:
            raise KeyboardInterrupt

    def metrics(self) -> dict[str, float]:
        return {"total": float(self.total)}

    def state(self) -> dict[str, torch.Tensor]:
        return {"total": self.total}

    def resume(self, state: dict[str, torch.Tensor]) -> None:
        assert not self.begun
        self.total = state["total"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from knowshift.train import methods

    monkeypatch.setitem(methods.METHODS, "counted", "")
    usual = methods.load
    monkeypatch.setattr(methods, "load", lambda name: Counted if name == "counted" else usual(name))


def fit(base: Path, data: Path, out: Path, *, stop_at: int = 0, **changes: object) -> Path:
    """A run in this process that ends by itself in the middle of step ``stop_at``."""
    common = {
        "model": str(base),
        "data": data,
        "out": out,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "bf16": False,
        "save_steps": 2,
        "method": "counted",
    } | changes
    options = TrainOptions(**common)
    if stop_at:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Counted, "keeper", lambda self, run: Counter(stop_at))
            with pytest.raises(KeyboardInterrupt):
                run.train(options)
        return out
    return run.train(options)


def test_keepers_take_their_state_back(base: Path, data: Path, tmp_path: Path, counted: None) -> None:
    whole = fit(base, data, tmp_path / "whole")
    assert not fit(base, data, tmp_path / "out", stop_at=5).exists()
    assert steps_in(tmp_path / "out") == 4
    out = fit(base, data, tmp_path / "out")
    same(whole, out, adapter=False)
    assert json.loads((out / "run.json").read_text())["resumed_at"] == 4
    assert pl.read_parquet(out / "train_log.parquet")["total"].is_sorted()


def test_experts_held_in_one_piece_come_back(data: Path, tmp_path: Path, counted: None) -> None:
    from transformers import AutoModelForCausalLM

    config = tiny.specimen("mixtral").config
    config.vocab_size = 400
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    whole = fit(base, data, tmp_path / "whole")
    fit(base, data, tmp_path / "out", stop_at=3)
    same(whole, fit(base, data, tmp_path / "out"), adapter=False)


def test_other_options_start_anew_and_say_so(
    base: Path, data: Path, tmp_path: Path, counted: None, capsys: pytest.CaptureFixture
) -> None:
    fit(base, data, tmp_path / "out", stop_at=3)
    (left,) = tmp_path.glob(".out.*.checkpoints")
    capsys.readouterr()
    fit(base, data, tmp_path / "out", learning_rate=1e-3)
    assert f"note: {left} holds checkpoints of a run with other options" in capsys.readouterr().err
    assert left.exists()
    # Longer, or under another schedule, is not another run where it is asked for by name.
    longer = fit(base, data, tmp_path / "longer", epochs=2, resume_from=left)
    assert pl.read_parquet(longer / "train_log.parquet").height == 12
    for changes, message in (
        ({"learning_rate": 1e-3}, "made with learning_rate 0.003, here it is 0.001"),
        ({"method": "sft"}, "made with method counted, here it is sft"),
        ({"model": str(tiny.checkpoint(tmp_path / "other", "gpt2", seed=1))}, "a checkpoint of another model: sha256:"),
        ({"resume_from": tmp_path}, "no whole checkpoint of knowshift train here"),
        ({"resume_from": tmp_path / "none"}, "no whole checkpoint of knowshift train here"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            fit(base, data, tmp_path / "new", **({"resume_from": left} | changes))
        assert "\n" not in str(caught.value) and str(caught.value).startswith("--resume-from ")
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text() * 2)
    with pytest.raises(InputError, match="a checkpoint of other data"):
        fit(base, other, tmp_path / "new", resume_from=left)
    assert not (tmp_path / "new").exists()


def test_a_file_that_an_option_names_is_known_by_what_is_in_it(
    base: Path, data: Path, tmp_path: Path, counted: None
) -> None:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    def options(texts: Path, replay: Path) -> dict[str, object]:
        set_ = {"kl-anchor.data": str(texts), "kl-anchor.batch": 1, "kl-anchor.length": 8}
        return {"method": "counted+kl-anchor", "set": set_, "replay": replay}

    texts, replay = write("a.txt", "The river runs to the sea. " * 9), write("a.jsonl", '{"text": "abc"}\n' * 9)
    fit(base, data, tmp_path / "out", stop_at=3, **options(texts, replay))
    (left,) = tmp_path.glob(".out.*.checkpoints")
    other = write("b.txt", "The sea runs to the river. " * 9)
    for given, message in (
        (options(other, replay), f"made with kl-anchor.data {digest_file(texts)}, here it is {digest_file(other)}"),
        (options(texts, write("b.jsonl", '{"text": "xyz"}\n' * 9)), "a checkpoint of other replay: "),
    ):
        with pytest.raises(InputError, match=message):
            fit(base, data, tmp_path / "new", resume_from=left, **given)
    moved = fit(base, data, tmp_path / "out", **options(texts.rename(tmp_path / "c.txt"), replay))
    entry = json.loads((moved / "run.json").read_text())
    assert entry["resumed_at"] == 2
    assert entry["files"] == {
        "kl-anchor.data": {"file": f"{tmp_path}/c.txt", "sha256": digest_file(tmp_path / "c.txt")}
    }
    assert f"| kl-anchor.data | `{tmp_path}/c.txt`, SHA-256 `" in (moved / "README.md").read_text()


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "out", {"options": {"set": {}}})
    for step in (2, 10):
        with kept.saving(step) as folder:
            (folder / f"checkpoint-{step}").mkdir()
            (folder / f"checkpoint-{step}" / "a").write_text("whole")
    assert [path.name for path in kept.folder.iterdir()] == ["checkpoint-10"] and kept.last() == last_in(kept.folder)
    with pytest.raises(ZeroDivisionError), kept.saving(11) as folder:
        (folder / "checkpoint-11").mkdir()
        raise ZeroDivisionError
    assert [path.name for path in kept.folder.iterdir()] == ["checkpoint-10"]
    (kept.folder / "checkpoint-10" / "a").write_text("who")
    assert kept.last() is None


def test_a_damaged_checkpoint_is_one_line(base: Path, data: Path, tmp_path: Path, counted: None) -> None:
    fit(base, data, tmp_path / "out", stop_at=3)
    (file,) = tmp_path.glob(".out.*.checkpoints/checkpoint-2/optimizer.pt")
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(InputError, match=r"checkpoint-2: this checkpoint cannot be read: .*; remove it"):
        fit(base, data, tmp_path / "out")


def test_two_runs_into_one_folder(base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with FileLock(tmp_path / ".out.lock"):
        line = refused(capsys, "train", base, "--data", data, "--out", tmp_path / "out")
    assert "another run is writing this folder" in line


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        resumable.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 448 vs 342"),
    ],
)
def test_every_library_s_word_for_a_full_disk(error: Exception) -> None:
    with pytest.raises(InputError, match=r"x: the disk is full$"), disk_watched(Path("x"), ""):
        raise error
    with pytest.raises(ZeroDivisionError), disk_watched(Path("x"), ""):
        raise ZeroDivisionError
