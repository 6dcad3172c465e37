"""The files of a store: a flipped bit is found, small files become few, and nobody notices but the folder."""

import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from knowshift.errors import InputError
from knowshift.mastery.parts import FULL, MANY, RECORD, list_parts, merge_parts
from knowshift.mastery.store import Store

KEYS = np.array([[prompt % 7, prompt] for prompt in range(2 * MANY)], np.uint64)


def record(prompt: int, first: int = 0, *, text: str = "a") -> pl.DataFrame:
    """Three draws of one prompt."""
    verdicts = [(prompt + draw) % 2 == 0 for draw in range(first, first + 3)]
    texts = ([f"{text} {draw}" for draw in range(3)], [1] * 3, ["eos"] * 3)
    return pl.DataFrame(
        [(prompt % 7, prompt, first, 3, verdicts, [False] * 3, True, False, True, *texts)], schema=RECORD, orient="row"
    )


def files(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.glob("*.parquet"))


def begun(root: Path, parts: int, *, text: str = "a") -> Store:
    """A store as it was opened before the last of ``parts`` blocks was added."""
    store = Store.open(root, {}, fitted=8)
    for prompt in range(parts):
        store.add(record(prompt, text=text))
    return Store(store.folder, 8)


def test_every_flipped_bit_is_found_and_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = begun(tmp_path, 3)
    part = sorted(store.folder.glob("*.parquet"))[1]
    whole = part.read_bytes()
    draw = random.Random(3)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        part.write_bytes(damaged)
        for read in (lambda: store.read(KEYS[:3], texts=True), lambda: Store(store.folder, 8)):
            with pytest.raises(InputError, match=rf"^{part}: a damaged file .*delete it.*draws again[^\n]*$"):
                read()
    assert capfd.readouterr() == ("", "")
    part.unlink()
    left = Store.open(tmp_path, {}, fitted=8).lacking(KEYS[:3], 3, greedy=True, texts=True)
    assert left == [None, (0, 3, True), None]
    part.write_bytes(whole)
    assert Store.open(tmp_path, {}, fitted=8).lacking(KEYS[:3], 3, greedy=True, texts=True) == [None] * 3


def test_a_file_with_another_name_is_refused(tmp_path: Path) -> None:
    store = begun(tmp_path, 1)
    (part,) = store.folder.glob("*.parquet")
    for name in ("x.parquet", f"000002-000002-{'0' * 16}.parquet"):
        copy = Path(shutil.copyfile(part, part.with_name(name)))
        with pytest.raises(InputError, match=name):
            Store(store.folder, 8)
        copy.unlink()


def test_many_small_files_become_few_and_hold_the_same(tmp_path: Path) -> None:
    few = begun(tmp_path / "few", MANY)
    names = files(few)
    assert len(names) == MANY
    Store.open(tmp_path / "few", {}, fitted=8)
    assert files(few) == names

    store = begun(tmp_path / "many", MANY + 1)
    before = store.read(KEYS, texts=True)
    lacking = store.lacking(KEYS, 5, greedy=True, texts=True)
    merged = Store.open(tmp_path / "many", {}, fitted=8)
    assert len(files(merged)) == 1
    assert_frame_equal(merged.read(KEYS, texts=True), before)
    assert merged.lacking(KEYS, 5, greedy=True, texts=True) == lacking
    assert_frame_equal(store.read(KEYS, texts=True), before)  # opened before the files went

    merged.add(record(MANY + 1))
    assert len(files(merged)) == 2
    assert Store(merged.folder, 8).read(KEYS, texts=False).height == before.height + 1


def test_a_merge_that_was_killed_leaves_nothing_twice(tmp_path: Path) -> None:
    store = begun(tmp_path, MANY + 5)
    before = store.read(KEYS, texts=True)
    old = {path.name: path.read_bytes() for path in store.folder.glob("*.parquet")}
    merge_parts(store.folder)
    (merged,) = files(store)
    for left in (list(old), list(old)[5:], list(old)[-1:]):  # written, and so many not yet removed
        for name in left:
            (store.folder / name).write_bytes(old[name])
        assert_frame_equal(Store(store.folder, 8).read(KEYS, texts=True), before)
        store.add(record(0, 3))  # numbers go on after those that were merged
        added = Store.open(tmp_path, {}, fitted=8)
        assert len(files(added)) == 2 and merged in files(added)
        assert added.read(KEYS, texts=True).height == before.height + 1
        next(path for path in store.folder.glob("*.parquet") if path.name != merged).unlink()


def test_full_files_stay_as_they_are(tmp_path: Path) -> None:
    """What is read at once stays small, and what was merged is not merged again and again."""
    draw = random.Random(1)
    store = Store.open(tmp_path, {}, fitted=8)
    for prompt in range(MANY + 10):
        store.add(record(prompt, text="".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=60_000))))
    before = Store(store.folder, 8).read(KEYS, texts=True)
    merge_parts(store.folder)
    sizes = [part.path.stat().st_size for part in list_parts(store.folder)[0]]
    assert 2 < len(sizes) < 9
    assert all(FULL // 2 <= size < 1.5 * FULL for size in sizes[:-1])
    full = files(store) if sizes[-1] >= FULL // 2 else files(store)[:-1]
    for prompt in range(MANY + 10, 2 * MANY + 12):
        store.add(record(prompt))
    merge_parts(store.folder)
    assert set(full) < set(files(store))
    assert len(files(store)) == len(full) + 1
    again = Store(store.folder, 8).read(KEYS[: MANY + 10], texts=True)
    assert_frame_equal(again, before)
