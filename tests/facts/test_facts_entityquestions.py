"""EntityQuestions: the paper's totals from the real archive, and what the reader does with any other."""

import gzip
import io
import json
import os
import random
import re
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import miniquestions as mini
from knowshift.cli import main
from knowshift.errors import InputError
from knowshift.facts import archive
from knowshift.facts.entityquestions import IN_DOMAIN, OUT_OF_DOMAIN, content, read_entityquestions
from knowshift.facts.fact import Fact, read_jsonl
from knowshift.facts.fetch import CONTENT, ROWS
from knowshift.facts.sources import overlaps, read_facts
from knowshift.facts.templates import topics

REAL = os.environ.get("KNOWSHIFT_ENTITYQUESTIONS", "")
real = pytest.mark.skipif(not REAL, reason="KNOWSHIFT_ENTITYQUESTIONS does not name the archive")


@pytest.fixture(scope="module")
def published() -> list[Fact]:
    return read_facts(f"entityquestions:{REAL}")


@real
def test_the_papers_totals(published: list[Fact]) -> None:
    counts = Counter((fact.split, fact.domain) for fact in published)
    assert counts["train", "id"] == 75_944
    assert counts["test", "id"] == 9_555
    assert counts["test", "ood"] == 11_613
    assert ("train", "ood") not in counts
    assert {fact.topic for fact in published if fact.domain == "id"} == set(mini.IN_DOMAIN)
    assert {fact.topic for fact in published if fact.domain == "ood"} == set(mini.OUT_OF_DOMAIN)
    assert len({fact.id for fact in published}) == len(published)
    assert all(len(fact.answers) == 1 for fact in published)
    for split in ("train", "validation", "test"):
        for domain in ("id", "ood"):
            asked = [fact.question for fact in published if (fact.split, fact.domain) == (split, domain)]
            assert len(set(asked)) == len(asked)


@real
def test_subjects_make_the_questions_again(published: list[Fact]) -> None:
    """The reference is plain: the archive's own template with the subject put in, read here without the reader."""
    with tarfile.open(REAL) as opened:
        (name,) = (name for name in opened.getnames() if name.endswith("relation_query_templates.json"))
        handle = opened.extractfile(name)
        assert handle is not None
        templates = json.load(handle)
    assert all(templates[fact.topic].replace("[X]", fact.subject) == fact.question for fact in published)


@real
def test_without_its_list_of_templates_the_facts_are_the_same(published: list[Fact], tmp_path: Path) -> None:
    with tarfile.open(REAL) as opened:
        handles = {info.name: opened.extractfile(info) for info in opened if info.name.startswith("dataset/")}
        files = {name: handle.read() for name, handle in handles.items() if handle}
    assert read_facts(f"entityquestions:{mini.zipped(tmp_path / 'public.zip', files)}") == published


@real
def test_the_published_archive_is_what_fetch_expects() -> None:
    assert content(Path(REAL)) == (ROWS, CONTENT)


@real
@pytest.mark.parametrize(("flags", "train", "said"), [([], 75_944, "kept"), (["--drop-overlaps"], 75_818, "left out")])
def test_overlaps_are_126(
    flags: list[str], train: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "train.jsonl"
    assert main(["facts", "export", f"entityquestions:{REAL}", "--split", "train", "--out", str(out), *flags]) == 0
    note = capsys.readouterr().err
    assert note.count("\n") == 1
    assert "126 facts of train are asked in test too" in note
    assert said in note
    assert "--drop-overlaps" in note or flags
    assert len(read_jsonl(out)) == train


@real
def test_an_export_is_read_back_as_it_was(published: list[Fact], tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    assert main(["facts", "export", f"entityquestions:{REAL}", "--out", str(out)]) == 0
    assert read_facts(str(out)) == published


# From here on a made-up data set of the same layout.


@pytest.fixture
def files() -> dict[str, bytes]:
    return mini.members(mini.entries())


def test_the_filter_and_the_fields(tmp_path: Path, files: dict[str, bytes]) -> None:
    facts = {fact.id: fact for fact in read_entityquestions(mini.tar(tmp_path / "eq.tar.gz", files))}
    assert facts["P17/train/1"] == Fact(
        "P17/train/1", "What is the P17 of Åland?", ("Finland",), "P17", "Åland", "train", "id"
    )
    assert "P17/train/2" not in facts  # two answers
    assert "P17/train/3" not in facts  # asked before, whatever is answered there
    assert facts["P17/train/4"].subject == "{x} (*) [X] \\d+$"
    assert (facts["P50/test/0"].subject, facts["P50/test/0"].domain) == ("P50 test", "ood")
    assert "P276/train/1" in facts  # pooled: P131 asks the same and comes after
    assert "P131/train/1" not in facts
    assert facts["P17/validation/0"].question == "What is the P17 of P17 dev?"
    assert not any(fact.split == "train" and fact.domain == "ood" for fact in facts.values())
    ours = (*IN_DOMAIN, *OUT_OF_DOMAIN)
    assert Counter(fact.split for fact in facts.values()) == {
        "train": len(IN_DOMAIN) + 4,
        "validation": len(ours),
        "test": len(ours) + 3,
    }


def test_any_container_says_the_same(tmp_path: Path, files: dict[str, bytes]) -> None:
    bare = mini.members(mini.entries(), prefix="")
    backwards = dict(reversed(files.items()))
    paths = [
        mini.folder(tmp_path / "above", files),
        mini.folder(tmp_path / "itself", bare),
        mini.tar(tmp_path / "eq.tar", backwards),
        mini.tar(tmp_path / "eq.tar.gz", files),
        mini.zipped(tmp_path / "eq.zip", backwards),
        mini.zipped(tmp_path / "no_ending", bare),
    ]
    first, *others = [read_facts(f"entityquestions:{path}") for path in paths]
    assert all(facts == first for facts in others)
    assert len({content(path) for path in paths}) == 1


def test_the_topics_have_templates_and_one_domain(tmp_path: Path, files: dict[str, bytes]) -> None:
    facts = read_entityquestions(mini.tar(tmp_path / "eq.tar", files))
    known = topics()
    assert {(fact.topic, fact.domain) for fact in facts} == {
        (name, known[name].domain) for name in (*mini.IN_DOMAIN, *mini.OUT_OF_DOMAIN)
    }


def test_overlaps_are_kept_or_left_out_of_train(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = f"entityquestions:{mini.tar(tmp_path / 'eq.tar.gz', files)}"
    notes: list[str] = []
    kept = read_facts(source, notice=notes.append)
    assert overlaps(kept) == {("P17", "What is the P17 of Åland?"), ("P17", "What is the P17 of {x} (*) [X] \\d+$?")}
    dropped = read_facts(source, drop_overlaps=True, notice=notes.append)
    assert {fact.id for fact in kept} - {fact.id for fact in dropped} == {"P17/train/1", "P17/train/4"}
    assert overlaps(dropped) == set()
    assert [re.search(r": 2 facts .*\((.*?)[;)]", note)[1] for note in notes] == ["kept", "left out of train"]  # type: ignore[index]
    assert read_facts(source, split="test", drop_overlaps=True) == [fact for fact in kept if fact.split == "test"]


def test_nothing_to_drop_is_said_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text('{"question": "q", "answer": "a", "split": "train"}\n')
    notes: list[str] = []
    read_facts(str(path), notice=notes.append)
    assert notes == []
    read_facts(str(path), drop_overlaps=True, notice=notes.append)
    assert len(notes) == 1
    assert ": 0 facts of train" in notes[0]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("train/P17.train.json", b"[{", r"train/P17\.train\.json: not valid JSON"),
        ("train/P17.train.json", b"[" * 100_000, r"train/P17\.train\.json: not valid JSON"),
        ("train/P17.train.json", b'["\xff"]', r"train/P17\.train\.json: not valid UTF-8 at byte 2"),
        ("dev/P26.dev.json", {"question": "q"}, r"dev/P26\.dev\.json: a list of questions is expected, found dict"),
        ("test/P17.test.json", [3], r"test/P17\.test\.json\[0\]: an object is expected, found int"),
        ("test/P17.test.json", [{"answers": ["a"]}], r'\[0\]: "question" must be a text'),
        ("test/P17.test.json", [{"question": " ", "answers": ["a"]}], r'\[0\]: "question" must be a text'),
        ("test/P17.test.json", [{"question": "q", "answers": "a"}], r'\[0\]: "answers" must be a list'),
        ("test/P17.test.json", [{"question": "q", "answers": [1]}], r'\[0\]: "answers" must be a list'),
        ("test/P17.test.json", [{"question": "q", "answers": []}], r'\[0\]: "answers" is empty'),
        ("test/P17.test.json", [{"question": "q", "answers": ["a", "\u200b"]}], r'\[0\]: "answers" is empty or'),
        ("test/P17.test.json", [{"question": "q\ud800", "answers": ["a"]}], r"\[0\].*surrogate"),
        ("test/P17.test.json", [{"question": "q", "answers": ["a\0"]}], r"\[0\].*NUL"),
        (
            "test/P17.test.json",
            [mini.ask("P17", "Oslo", "Norway"), mini.ask("P19", "Oslo", "Norway")],
            r"test/P17\.test\.json\[1\]: the question 'What is the P19 of Oslo\?' is not of the form",
        ),
        ("test/P17.test.json", [mini.ask("P17", " ", "Norway")], r"\[0\]: the question .* is not of the form"),
    ],
)
def test_damage_is_named_by_file_and_entry(
    name: str, value: object, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mini.zipped(tmp_path / "eq.zip", mini.members(mini.entries() | {name: value}))  # type: ignore[dict-item]
    with pytest.raises(InputError, match=complaint) as error:
        read_entityquestions(path)
    assert str(error.value).startswith(f"{path}: ")
    assert main(["facts", "export", f"entityquestions:{path}", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("table", [b"{", [], {}, {"P17": 3}, {"P17": "no place for it"}, {"P17": "[X] and [X]"}])
def test_a_damaged_list_of_templates(table: object, tmp_path: Path, files: dict[str, bytes]) -> None:
    files["relation_query_templates.json"] = table if isinstance(table, bytes) else json.dumps(table).encode()
    with pytest.raises(InputError, match=r"relation_query_templates\.json: (not valid JSON|no question for P17)"):
        read_entityquestions(mini.folder(tmp_path / "eq", files))


def test_a_missing_file_is_named(tmp_path: Path, files: dict[str, bytes]) -> None:
    del files["dataset/test/P36.test.json"]
    with pytest.raises(InputError, match=r"test/P36\.test\.json is missing \(1 of 58 files\)"):
        read_entityquestions(mini.tar(tmp_path / "eq.tar", files))


def test_what_is_no_archive_of_it(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("question,answer\n" * 100)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"question,answer\n" * 100))
    (tmp_path / "folder").mkdir()
    mini.zipped(tmp_path / "other.zip", {"readme.txt": b"hello"})
    for name, complaint in {
        "text": "neither a folder nor a",
        "empty": "neither a folder nor a",
        "text.gz": "damaged",
        "folder": "not EntityQuestions",
        "other.zip": "not EntityQuestions",
        "none": "no such file or folder",
    }.items():
        with pytest.raises(InputError, match=complaint):
            read_facts(f"entityquestions:{tmp_path / name}")
    with pytest.raises(InputError, match="belongs after the colon"):
        read_facts("entityquestions:")


def test_names_that_lead_outside_are_passed_over(tmp_path: Path, files: dict[str, bytes]) -> None:
    evil = json.dumps([mini.ask("P17", "evil", "evil")]).encode()
    hostile = {f"{start}train/P17.train.json": evil for start in ("../", "/", "dataset/../../")}
    for path in (mini.tar(tmp_path / "eq.tar.gz", hostile | files), mini.zipped(tmp_path / "eq.zip", hostile | files)):
        facts = read_entityquestions(path)
        assert "evil" not in {fact.subject for fact in facts}
        assert facts == read_entityquestions(mini.folder(tmp_path / "eq", files))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["eq", "eq.tar.gz", "eq.zip"]
    assert not (tmp_path.parent / "train").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_link_in_the_place_of_a_file_is_refused(kind: bytes, tmp_path: Path, files: dict[str, bytes]) -> None:
    info = tarfile.TarInfo("dataset/train/P17.train.json")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match=r"train/P17\.train\.json is not a plain file"):
        read_entityquestions(mini.tar(tmp_path / "eq.tar.gz", files, info))
    if kind == tarfile.SYMTYPE:
        path = mini.zipped(tmp_path / "eq.zip", files)
        link = zipfile.ZipInfo("other/train/P17.train.json")
        link.external_attr = 0o120777 << 16
        with zipfile.ZipFile(path, "a") as opened:
            opened.writestr(link, "/etc/passwd")
        with pytest.raises(InputError, match=r"train/P17\.train\.json is not a plain file"):
            read_entityquestions(path)


def test_two_versions_of_a_file_are_refused_and_twins_are_not(tmp_path: Path, files: dict[str, bytes]) -> None:
    name = "train/P17.train.json"
    twins = files | {f"copy/{name}": files[f"dataset/{name}"]}
    assert len(read_entityquestions(mini.tar(tmp_path / "twins.tar", twins))) > 0
    with pytest.raises(InputError, match=r"are both there and differ"):
        read_entityquestions(mini.tar(tmp_path / "two.tar", files | {f"copy/{name}": b"[]"}))


def test_bombs_are_refused(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(archive.MEMBER_LIMIT + 1)
    large = files | {"dataset/train/P17.train.json": zeros}
    for path in (mini.tar(tmp_path / "eq.tar.gz", large), mini.zipped(tmp_path / "eq.zip", large)):
        assert path.stat().st_size < 1 << 20
        with pytest.raises(InputError, match=r"P17\.train\.json is 64 MiB; at most 64"):
            read_entityquestions(path)
    monkeypatch.setattr(archive, "ARCHIVE_LIMIT", 40_000)
    padded = files | {"dataset/readme": bytes(50_000)}
    with pytest.raises(InputError, match="unpacks to more than"):
        read_entityquestions(mini.tar(tmp_path / "padded.tar.gz", padded))


@pytest.mark.parametrize("make", [mini.tar, mini.zipped])
def test_a_damaged_archive_never_passes_for_another(make: object, tmp_path: Path, files: dict[str, bytes]) -> None:
    """Bytes changed, cut off or taken out: the same facts come, or one InputError."""
    path = make(tmp_path / "eq.gz", files)  # type: ignore[operator]
    good, facts = path.read_bytes(), read_entityquestions(path)
    draw = random.Random(7)
    refused = 0
    for _ in range(60):
        raw = bytearray(good)
        place = draw.randrange(len(raw))
        match draw.randrange(3):
            case 0:
                raw[place] ^= 1 << draw.randrange(8)
            case 1:
                del raw[place:]
            case _:
                del raw[place : place + draw.randrange(1, 50)]
        path.write_bytes(raw)
        try:
            assert read_entityquestions(path) == facts
        except InputError:
            refused += 1
    assert refused > 30


def test_a_lying_size_in_a_zip(tmp_path: Path, files: dict[str, bytes]) -> None:
    name = "dataset/train/P17.train.json"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for member, data in files.items():
            opened.writestr(member, data)
        opened.getinfo(name).file_size = 10  # what the table of contents will say
    path = tmp_path / "eq.zip"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"P17\.train\.json"):
        read_entityquestions(path)
