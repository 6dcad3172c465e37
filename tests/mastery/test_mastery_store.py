"""The store: what it lacks, against a plain set; later runs that pay only for what is new; damage and company."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import tiny
from knowshift.cli import main
from knowshift.facts.fact import Fact, write_jsonl
from knowshift.files import read_json
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.mastery.parts import RECORD
from knowshift.mastery.score import MasteryOptions, score
from knowshift.mastery.store import Store

OPTIONS = MasteryOptions(templates=5, samples=4, temperature=1.0, max_new_tokens=5, seed=1)
FACTS = [Fact(a + b, f"Say {a} and {b}?", (a if b == "a" else a + b,)) for a in "abcdehinst" for b in "abcd"]


class Counting(TransformersEngine):
    """Notes how many draws and greedy continuations it is asked for."""

    draws = greedy_asked = calls = 0

    def sample(self, prompts, **asked):
        self.draws += len(prompts) * asked["samples"]
        self.greedy_asked += len(prompts) * asked.get("greedy", False)
        self.calls += 1
        return super().sample(prompts, **asked)

    def paid(self) -> tuple[int, int]:
        """Draws and greedy continuations since it was last asked."""
        asked = self.draws, self.greedy_asked
        self.draws = self.greedy_asked = 0
        return asked


@pytest.fixture
def engine() -> Counting:
    return Counting(tiny.model("llama", seed=3).float(), tiny.tokenizer(), rows=32)


@pytest.fixture
def run(engine: Counting, tmp_path: Path) -> Callable[..., pl.DataFrame]:
    """Score ``facts`` under changed options; runs of one store name share it."""

    def once(facts: list[Fact], *, store: str, keep_samples: bool = False, **changed: object) -> pl.DataFrame:
        options = OPTIONS.model_copy(update=changed)
        place = tmp_path / store
        return score(engine, facts, tmp_path / "out", options, model="m", keep_samples=keep_samples, store=place)

    return once


def nearly_equal(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """The same facts, and the same hits but for one in a thousand draws that rounding decides."""
    assert left["id"].to_list() == right["id"].to_list()
    return (left["hits"] - right["hits"]).abs().sum() <= left["trials"].sum() / 1000


def test_more_facts_cost_the_new_ones(engine: Counting, run: Callable[..., pl.DataFrame]) -> None:
    first = run(FACTS[::2], store="grown")
    assert engine.paid() == (20 * 20, 20 * 5)
    grown = run(FACTS, store="grown")
    assert engine.paid() == (20 * 20, 20 * 5)
    assert_frame_equal(grown.filter(pl.col("id").is_in(first["id"].to_list())), first)
    scratch = run(FACTS, store="scratch")
    assert engine.paid() == (40 * 20, 40 * 5)
    assert nearly_equal(grown, scratch)
    assert_frame_equal(run(FACTS, store="grown"), grown)
    assert engine.paid() == (0, 0)


def test_more_samples_cost_the_new_ones_and_fewer_nothing(engine: Counting, run: Callable[..., pl.DataFrame]) -> None:
    run(FACTS, store="grown", samples=4)
    assert engine.paid() == (40 * 20, 40 * 5)
    grown = run(FACTS, store="grown", samples=7)
    assert engine.paid() == (40 * 5 * 3, 0)
    scratch = run(FACTS, store="scratch", samples=7)
    assert engine.paid() == (40 * 35, 40 * 5)
    assert nearly_equal(grown, scratch)
    fewer, few = run(FACTS, store="grown", samples=2), run(FACTS, store="few", samples=2)
    assert engine.paid() == (40 * 10, 40 * 5)
    assert nearly_equal(fewer, few)


def test_more_templates_cost_the_new_ones(engine: Counting, run: Callable[..., pl.DataFrame]) -> None:
    run(FACTS, store="grown", templates=2)
    assert engine.paid() == (40 * 8, 40 * 2)
    grown = run(FACTS, store="grown", templates=6)
    assert engine.paid() == (40 * 16, 40 * 4)
    assert nearly_equal(grown, run(FACTS, store="scratch", templates=6))
    engine.paid()
    run(FACTS, store="grown", templates=3)
    assert engine.paid() == (0, 0)


def test_greedy_alone_costs_one_draw_beside_it(engine: Counting, run: Callable[..., pl.DataFrame]) -> None:
    run(FACTS, store="grown", slick=False)
    assert engine.paid() == (40 * 20, 0)
    later = run(FACTS, store="grown")
    assert engine.paid() == (40 * 5, 40 * 5)
    assert_frame_equal(later, run(FACTS, store="scratch"))
    engine.paid()
    run(FACTS, store="grown", samples=5)  # the draw that came with it is the fifth
    assert engine.paid() == (0, 0)


def test_texts_that_were_not_kept_are_drawn_again(
    engine: Counting, run: Callable[..., pl.DataFrame], tmp_path: Path
) -> None:
    run(FACTS, store="grown")
    engine.paid()
    kept = run(FACTS, store="grown", keep_samples=True)
    assert engine.paid() == (40 * 20, 0)
    samples = pl.read_parquet(tmp_path / "out" / "samples.parquet")
    assert samples.height == 40 * 20
    assert kept["hits"].sum() == samples["hit"].sum()
    run(FACTS, store="grown", keep_samples=True, samples=2)
    assert engine.paid() == (0, 0)
    assert pl.read_parquet(tmp_path / "out" / "samples.parquet").height == 40 * 10
    run(FACTS, store="grown")
    assert not (tmp_path / "out" / "samples.parquet").exists()


@pytest.mark.parametrize(
    "changed", [{"seed": 2}, {"temperature": 0.9}, {"max_new_tokens": 4}, {"case_sensitive": True}], ids=str
)
def test_what_decides_a_draw_makes_it_another(
    engine: Counting, run: Callable[..., pl.DataFrame], changed: dict[str, object]
) -> None:
    run(FACTS[:4], store="shared")
    paid = engine.paid()
    run(FACTS[:4], store="shared", **changed)
    assert engine.paid() == paid
    reworded = [Fact(fact.id, fact.question + "?", fact.answers) for fact in FACTS[:2]]
    other_answers = [Fact(fact.id, fact.question, (*fact.answers, "zebra")) for fact in FACTS[2:4]]
    run(reworded + other_answers, store="shared")
    assert engine.paid() == paid


def test_another_model_engine_or_tokenizer_makes_it_another(engine: Counting, tmp_path: Path) -> None:
    plain = TransformersEngine(engine.model, engine.tokenizer, rows=32)
    retold = Counting(engine.model, tiny.tokenizer(vocabulary=300), rows=32)
    for asked, model in ((engine, "m"), (engine, "n"), (plain, "m"), (retold, "m")):
        score(asked, FACTS[:2], tmp_path / "out", OPTIONS, model=model, store=tmp_path / "store")
    assert engine.paid()[0] == 2 * 2 * 20
    assert retold.paid()[0] == 2 * 20
    assert len(list((tmp_path / "store").iterdir())) == 4


def test_rows_are_those_the_store_was_begun_with(engine: Counting, run: Callable[..., pl.DataFrame]) -> None:
    run(FACTS[:2], store="grown")
    engine.rows = 9
    run(FACTS[:3], store="grown")
    assert engine.rows == 32
    run(FACTS[:4], store="grown", rows=7)
    assert engine.rows == 7
    engine.rows = 100
    run(FACTS[:5], store="grown")
    assert engine.rows == 7


SpanRow = tuple[int, int, int, bool, bool]  # prompt, first, count, greedy, kept
SPANS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(1, 5), st.booleans(), st.booleans()), max_size=12
)


def records(spans: list[SpanRow]) -> pl.DataFrame:
    """Records of spans; the verdict on a draw is whether its number is even. Keys share a half, two by two."""
    rows = []
    for prompt, first, count, greedy, kept in spans:
        draws = range(first, first + count)
        texts = ([str(draw) for draw in draws], [1] * count, ["eos"] * count) if kept else (None, None, None)
        asked = True if greedy else None
        hits = [draw % 2 == 0 for draw in draws]
        rows.append((prompt % 2, prompt, first, count, hits, [False] * count, asked, asked, kept, *texts))
    return pl.DataFrame(rows, schema=RECORD, orient="row")


@settings(max_examples=60, deadline=None)
@given(SPANS, st.integers(1, 9), st.booleans(), st.booleans())
def test_what_is_lacking_against_a_plain_set(
    tmp_path_factory: pytest.TempPathFactory,
    spans: list[SpanRow],
    samples: int,
    greedy: bool,
    texts: bool,
) -> None:
    root = tmp_path_factory.mktemp("store")
    store = Store.open(root, {}, fitted=1)
    for start in range(0, len(spans), 4):
        store.add(records(spans[start : start + 4]))
    keys = np.array([[prompt % 2, prompt] for prompt in range(4)], np.uint64)
    again = Store.open(root, {}, fitted=2)
    assert again.rows == 1
    have = {
        (prompt, draw)
        for prompt, first, count, _, kept in spans
        if kept or not texts
        for draw in range(first, first + count)
    }
    for prompt, span in enumerate(again.lacking(keys, samples, greedy=greedy, texts=texts)):
        unbroken = next(draw for draw in range(100) if (prompt, draw) not in have)
        known = any(other == prompt and asked for other, _, _, asked, _ in spans)
        if unbroken >= samples and (known or not greedy):
            assert span is None
        else:
            assert span is not None
            assert span == (unbroken, max(1, samples - unbroken), greedy and not known)
    found = again.read(keys, texts=True)
    told = set(zip(found["prompt"], found["first"], found["count"], found["kept"], strict=True))
    assert told == {(prompt, first, count, kept) for prompt, first, count, _, kept in spans}
    for row in found.iter_rows(named=True):
        assert row["hits"] == [draw % 2 == 0 for draw in range(row["first"], row["first"] + row["count"])]


def test_damage_is_named_in_one_line(base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, out = tmp_path / "facts.jsonl", tmp_path / "out"
    write_jsonl(facts, (fact.to_json() for fact in FACTS))
    command = ["mastery", str(base_folder), "--facts", str(facts), "--out", str(out), "--templates", "2"]
    command += ["--samples", "2", "--max-new-tokens", "3", "--rows", "2"]
    assert main(command) == 0
    before = (out / "mastery.parquet").read_bytes()
    part = sorted(out.glob("store/*/*.parquet"))[1]
    whole = part.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PAR1" * 50):
        part.write_bytes(damaged)
        capsys.readouterr()
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(part) in line
        assert "delete it" in line
    part.unlink()
    assert main(command) == 0  # only what the file held is drawn again, and the same
    assert 0 < read_json(out / "metrics.json")["draws"]["made"] < 40 * 4
    assert (out / "mastery.parquet").read_bytes() == before
    pl.DataFrame({"x": [1]}).write_parquet(part.with_name("other.parquet"))
    assert main(command) == 2
    part.with_name("other.parquet").unlink()
    (part.parent / "way.json").write_text('{"rows": "many"}')
    capsys.readouterr()
    assert main(command) == 2
    assert "way.json" in capsys.readouterr().err


def _score_some(folder: str, store: str, out: str, start: int, results: "multiprocessing.Queue[list[int]]") -> None:
    engine = TransformersEngine(tiny.model("llama", seed=3).float(), tiny.tokenizer(), rows=8)
    table = score(engine, FACTS[start : start + 30], Path(folder) / out, OPTIONS, model="m", store=Path(store))
    results.put([start, *table["hits"].to_list()])


def test_two_processes_share_a_store(engine: Counting, run: Callable[..., pl.DataFrame], tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    shared = str(tmp_path / "shared")
    processes = [
        context.Process(target=_score_some, args=(str(tmp_path), shared, f"out{start}", start, results))
        for start in (0, 10)
    ]
    for process in processes:
        process.start()
    told = {first: hits for first, *hits in (results.get(timeout=240) for _ in processes)}
    for process in processes:
        process.join()
    alone = run(FACTS, store="alone")["hits"].to_list()
    for start, hits in told.items():
        assert sum(abs(a - b) for a, b in zip(hits, alone[start : start + 30], strict=True)) <= 1


GROWTH = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import tiny
from knowshift.facts.fact import Fact
from knowshift.generate.transformers_engine import TransformersEngine
from knowshift.mastery.score import MasteryOptions, score
engine = TransformersEngine(tiny.model("llama", layers=1).float(), tiny.tokenizer(), rows=64)
facts = [Fact(str(n), f"What is {{n}}?", (f"answer {{n}}",)) for n in range({count})]
options = MasteryOptions(templates=2, samples=2, max_new_tokens=2)
score(engine, facts, Path({out!r}), options, model="m", keep_samples=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_hardly_grows_with_the_facts(tmp_path: Path) -> None:
    peaks = []
    for count in (50, 2000):
        script = GROWTH.format(tests=str(Path(tiny.__file__).parent), count=count, out=str(tmp_path / str(count)))
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        peaks.append(int(shown.stdout.split()[-1]))
    assert peaks[1] < 1.15 * peaks[0], peaks
