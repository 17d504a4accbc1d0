"""Teacher outputs that are kept: the same numbers as live ones, made once by several at a time, bounded on disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from rsedge.compress.distill import teacher_cache
from rsedge.compress.distill.codings import codings_for
from rsedge.compress.distill.teacher_cache import TeacherCache, make_room
from rsedge.compress.distill.teacher_outputs import (
    CachedOutputs,
    ChangedOutputs,
    LiveOutputs,
    SourceChoice,
    WithLabels,
    batch_in_step,
    cached_outputs,
    choose_source,
)
from rsedge.data import kept_folders
from rsedge.data.errors import MissingCapability, RequestError

Array = np.ndarray
COUNT = 20


def views(i: int) -> Array:
    return np.random.default_rng([9, i]).integers(1, 8000, (2, 8, 8)).astype(np.uint16)


def read(dn: Array) -> Array:
    return dn.astype(np.float32) / 8000


def ask(dn: Array) -> dict[str, Array]:
    x = read(dn)
    d = x[:, :1] - x[:, 1:]
    return {"logits": np.concatenate([2 * d, -2 * d, 0 * d], 1), "means": x.mean((2, 3))}


def chosen(folder: Path, count: int = COUNT, draws: int = 1000) -> SourceChoice:
    return choose_source(views, ask, count, draws, folder)


def opened(folder: Path) -> TeacherCache:
    return TeacherCache(folder, chosen(folder).record)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_cache, "SHARD_VIEWS", 8)


def test_changes_when_read_leave_the_answers_and_are_those_of_the_step(tmp_path: Path) -> None:
    def change(dn: Array, rng: np.random.Generator) -> Array:
        return dn + rng.integers(1, 9, dtype=np.uint16)

    for kept in (cached_outputs(opened(tmp_path / "a"), views, ask, read, COUNT), LiveOutputs(views, ask, read, COUNT)):
        source = WithLabels(ChangedOutputs(kept, change, 3), lambda i: np.full(2, i, np.float32))
        plain, answers = source.batch([4, 5])
        assert np.array_equal(plain, kept.batch([4, 5])[0])
        for step in (0, 1):
            x, outputs = batch_in_step(source, [4, 5], step)
            assert (x > plain).all() and np.array_equal(outputs["logits"], answers["logits"])
            assert outputs["labels"].tolist() == [[4, 4], [5, 5]]
            assert np.array_equal(x, batch_in_step(source, [4, 5], step)[0])
        assert not np.array_equal(x, batch_in_step(source, [4, 5], 0)[0])
    assert np.array_equal(batch_in_step(kept, [4, 5], 1)[0], plain), "nothing changes what is not asked to be"


def test_what_is_kept_is_what_live_gives_bit_for_bit_and_is_made_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def counted(i: int) -> Array:
        asked.append(i)
        return views(i)

    made = cached_outputs(opened(tmp_path / "a"), counted, ask, read, COUNT, batch=3)
    assert asked == list(range(COUNT)) and made.count == COUNT
    live = LiveOutputs(views, ask, read, COUNT, made.cache.record)
    for kept, computed in zip(made.batch([3, 19, 0]), live.batch([3, 19, 0]), strict=True):
        for one, other in zip(
            *(list(v.values()) if isinstance(v, dict) else [v] for v in (kept, computed)), strict=True
        ):
            assert np.array_equal(one, other) and one.dtype == other.dtype
    exact = ask(np.stack([views(3)]))["logits"]
    assert 0 < np.abs(made.batch([3])[1]["logits"] - exact).max() < 2e-3
    asked.clear()
    cached_outputs(opened(tmp_path / "a"), counted, ask, read, COUNT)
    assert not asked, "another student or run finds it"
    cached_outputs(opened(tmp_path / "a"), counted, ask, read, 23)
    assert asked == [20, 21, 22], "a set grows"


def test_a_kill_loses_the_shard_under_way_and_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done > 12:
            raise KeyboardInterrupt

    folder, asked = tmp_path / "a", list[int]()
    with pytest.raises(KeyboardInterrupt):
        cached_outputs(opened(folder), views, ask, read, COUNT, progress=stop)
    assert opened(folder).missing(COUNT) == 12 and not list(folder.glob("*.claim"))
    (folder / "000000.records").write_bytes(b"cut off")
    made = cached_outputs(opened(folder), lambda i: (asked.append(i), views(i))[1], ask, read, COUNT)
    assert asked == list(range(COUNT)) and made.cache.missing(COUNT) == 0
    (folder / "000001.records").unlink()
    with pytest.raises(RequestError, match=r"000001.records: view 9 .* run again"):
        made.batch([2, 9])


def test_several_make_one_set_together_each_view_once(tmp_path: Path) -> None:
    asked: list[int] = []
    found: list[CachedOutputs] = []
    both = threading.Barrier(2)

    def slow(dn: Array) -> dict[str, Array]:
        both.wait(20)  # each waits for the other, so that both are at work at once
        return ask(dn)

    def work() -> None:
        cache = opened(tmp_path / "a")
        found.append(cached_outputs(cache, lambda i: (asked.append(i), views(i))[1], slow, read, 16, batch=8))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(asked) == list(range(16)) and len(found) == 2
    assert np.array_equal(found[0].batch([1, 9])[0], found[1].batch([1, 9])[0])


def test_the_rule_keeps_what_is_read_again_and_says_the_size_before_it_starts(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    found = chosen(folder)
    assert found.cached and found.missing == COUNT and not folder.exists()
    assert f"{COUNT} views of 0.6 kB, 13.0 kB in {folder}, 13.0 kB to be made" in found.reason
    assert found.missing_bytes == COUNT * (2 * 8 * 8 * 2 + 3 * 8 * 8 * 2 + 2 * 4)
    once = chosen(folder, draws=COUNT)
    assert not once.cached and "on the fly" in once.reason
    assert not chosen(folder, 10**12, 10**13).cached, "no room"
    cached_outputs(opened(folder), views, ask, read, COUNT)
    assert chosen(folder, draws=1).cached and "all there" in chosen(folder).reason


def test_the_longest_unused_sets_make_room_and_those_in_use_stay(tmp_path: Path) -> None:
    kept = {name: cached_outputs(opened(tmp_path / name), views, ask, read, COUNT) for name in "abc"}
    for age, name in enumerate("abc"):
        os.utime(tmp_path / name / "set.json", (1000 + age, 1000 + age))
    size = sum(p.stat().st_size for p in tmp_path.glob("*/*"))
    del kept["a"], kept["c"]
    make_room(tmp_path, tmp_path / "new", need=10, most=size)
    assert {p.name for p in tmp_path.iterdir()} == {"b", "c"}, "a went, and was enough"
    make_room(tmp_path, tmp_path / "new", need=size, most=size)
    assert {p.name for p in tmp_path.iterdir()} == {"b"}, "somebody reads b"
    with pytest.raises(MissingCapability, match="RSEDGE_TEACHER_CACHE"):
        make_room(tmp_path, tmp_path / "new", need=10**18)


def test_a_set_that_was_removed_while_it_was_opened_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, made, folders = chosen(tmp_path / "a").record, kept_folders.make_folder, list[Path]()

    def removed_once(folder: Path) -> None:
        made(folder)
        folders.append(folder)

    held = kept_folders.fcntl.flock

    def lock(handle: int, kind: int) -> None:
        if len(folders) == 1:
            (tmp_path / "a").rename(tmp_path / "gone")
        held(handle, kind)

    monkeypatch.setattr(kept_folders, "make_folder", removed_once)
    monkeypatch.setattr(kept_folders.fcntl, "flock", lock)
    assert TeacherCache(tmp_path / "a", record).missing(COUNT) == COUNT and len(folders) == 2


def logits(classes: int, sharp: float) -> Array:
    return (np.random.default_rng(0).normal(0, sharp, (4, classes, 6, 6))).astype(np.float32)


@pytest.mark.parametrize(("classes", "sharp", "kind"), [(150, 8.0, "top"), (150, 0.1, "half"), (6, 8.0, "half")])
def test_of_many_classes_the_first_are_kept_where_the_others_hardly_count(
    classes: int, sharp: float, kind: str
) -> None:
    values = logits(classes, sharp)
    coding = codings_for({"logits": values}, classes=True)["logits"]
    assert coding.kind == kind and coding.error <= 1e-3
    records = np.zeros(4, np.dtype(coding.fields("logits")))
    coding.write("logits", values, records)
    found = coding.read("logits", records).astype(np.float64)
    first = np.take_along_axis(values, found.argmax(1)[:, None], 1)[:, 0]
    assert found.shape == values.shape and np.abs(first - values.max(1)).max() < 0.02
    p, q = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (values.astype(np.float64), found))
    assert (p * np.log(p / q)).sum(1).mean() <= 1e-3
    if kind == "top":
        assert records.itemsize < 0.5 * 2 * values[0].size


def test_what_half_precision_moves_too_far_stays_single() -> None:
    offset = 1000 + np.random.default_rng(0).normal(0, 1, (4, 8)).astype(np.float32)
    boxes = np.random.default_rng(0).uniform(0, 512, (4, 20, 6)).astype(np.float32)
    found = codings_for({"logits": boxes, "far": offset}, exact=True)
    assert {name: coding.kind for name, coding in found.items()} == {"logits": "single", "far": "single"}
    assert codings_for({"logits": logits(150, 8.0)})["logits"].kind == "half", "other losses look at all of them"
