"""``kill -9`` at random moments of one scoring run: what comes out is what an undisturbed run gives, bit for bit."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from knowshift.facts.fact import Fact, write_jsonl
from knowshift.files import read_json

KILLS = 10
FLAGS = ["--templates", "7", "--samples", "3", "--temperature", "1.0", "--max-new-tokens", "6", "--seed", "1"]
TABLES = ("mastery.parquet", "samples.parquet")


def run(arguments: list[str]) -> None:
    from knowshift.cli import main

    os._exit(main(arguments))


@pytest.fixture(scope="module")
def command(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    letters = "abcdefghijklmnopqrstuvwxyz"
    facts = [Fact(a + b, f"Say {a} and {b}?", (a if b == "a" else a + b,)) for a in letters for b in "abcdef"]
    write_jsonl(path, (fact.to_json() for fact in facts))
    # Small batches, so that there are many blocks to be killed between and within.
    return ["mastery", str(base_folder), "--facts", str(path), "--keep-samples", "--rows", "12", *FLAGS]


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Real processes, forked from one that has imported everything, so that they start at once."""
    context = multiprocessing.get_context("forkserver")
    loaded = ("steps", "cli", "models.load", "generate.transformers_engine")
    context.set_forkserver_preload(
        [*(f"knowshift.{name}" for name in loaded), "transformers.models.llama.modeling_llama"]
    )
    return context


def parts(out: Path) -> int:
    return len(list(out.glob("store/*/*.parquet")))


def killed_and_repeated(processes: multiprocessing.context.ForkServerContext, command: list[str], out: Path) -> int:
    """Kill the command ``KILLS`` times, at a random moment after it is a random number of blocks further; then let
    it end. Returns how many different numbers of blocks the kills left behind."""
    draw, left = random.Random(7), []
    while True:
        process = processes.Process(target=run, args=([*command, "--out", str(out)],))
        process.start()
        if len(left) < KILLS:
            wanted = parts(out) + draw.randrange(3)
            while process.is_alive() and parts(out) < wanted:
                time.sleep(0.002)
            time.sleep(draw.random() * 0.15)
            assert process.is_alive(), "the run ended before it could be killed ten times: give it more facts"
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            left.append(parts(out))
            assert not any((out / name).exists() for name in TABLES)
        else:
            process.join()
            assert process.exitcode == 0
            return len(set(left))


def test_killed_ten_times_it_ends_with_the_same_bits(
    command: list[str], processes: multiprocessing.context.ForkServerContext, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    process = processes.Process(target=run, args=([*command, "--out", str(whole)],))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert parts(whole) >= 15
    assert killed_and_repeated(processes, command, tmp_path / "killed") >= 4
    for name in TABLES:
        assert (tmp_path / "killed" / name).read_bytes() == (whole / name).read_bytes()
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {path.name for path in whole.iterdir()}
    assert not list((tmp_path / "killed").rglob("*.partial"))
    assert 0 < read_json(tmp_path / "killed" / "metrics.json")["draws"]["made"] < 156 * 21
