"""Scenes in panels, by threads, with failing tiles: the same bits, bounded memory, and what a run tells of itself."""

from __future__ import annotations

import itertools
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import rsedge
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.raster import Blocks
from rsedge.runtimes import Bundle, Session
from rsedge.runtimes.inference import tiles
from rsedge.runtimes.inference.images import infer_image
from rsedge.runtimes.inference.mosaic import Panels
from rsedge.runtimes.inference.scene import Rows, infer_scene, predict_rows
from rsedge.runtimes.inference.scene_run import SceneRun, text_of, warning_of
from rsedge.runtimes.inference.threads import ahead, behind
from rsedge.runtimes.inference.tiles import Panel, panels, tile_starts
from rsedge.runtimes.inference.vectors import chip_vectors
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


class Held:
    """A scene in memory that says how a file would store it."""

    def __init__(self, dn: np.ndarray, block: int = 16) -> None:
        self.dn, self.spec, self.path = dn, SPEC, Path("memory")
        _, self.height, self.width = dn.shape
        self.crs = self.transform = None
        self.blocks = Blocks(block, block, 2 * len(dn))

    def read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        dn = self.dn[:, row : row + height, col : col + width].copy()
        return dn, ~SPEC.valid(dn)


class Numbered:
    """Logits that depend on where in its tile a pixel is, so that every tile says something else; ``broken`` tells which tiles
    fail, by their first pixel, and how."""

    input_spec, runtime = SPEC, "test"

    def __init__(self, broken: Callable[[int], str] = lambda n: "", shuffle: int | None = None) -> None:
        self.broken, self.calls = broken, 0
        self._rng = None if shuffle is None else np.random.default_rng(shuffle)

    def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
        dn = inputs["dn"]
        how = self.broken(int(dn[0, 0, 0, 0]))
        if how == "error":
            raise RequestError("the device lost this tile")
        if how == "crash":
            raise RuntimeError("lost  this\ntile")
        at = np.linspace(0, 3, dn.shape[-1] ** 2, dtype=np.float32).reshape(1, 1, *dn.shape[-2:])
        logits = (
            np.sin(dn[:, :3].astype(np.float32) * 0.01) + at * np.array([1, -1, 0.5], np.float32)[None, :, None, None]
        )
        return {"logits": logits * (np.nan if how == "nan" else 1), "valid": SPEC.valid(dn[0])[None].astype(np.uint8)}

    def stream(self, inputs: Any) -> Iterator[dict[str, np.ndarray]]:
        """As sessions do: several on their way, which end in any order and are given in the inputs' order."""
        flying: list[Any] = []
        for one in inputs:
            flying.append(one)
            if len(flying) == 3:
                yield from self._ended(flying)
                flying = []
        yield from self._ended(flying)

    def _ended(self, flying: list[Any]) -> Iterator[dict[str, np.ndarray]]:
        order = np.arange(len(flying)) if self._rng is None else self._rng.permutation(len(flying))
        found = {int(n): self(flying[n]) for n in order}
        yield from (found[n] for n in range(len(flying)))


def put_together(rows: list[Rows], height: int, width: int) -> tuple[np.ndarray, np.ndarray | None]:
    classes = np.full((height, width), 77, np.uint8)
    shares = None if rows[0].probabilities is None else np.zeros((3, height, width), np.float32)
    for part in rows:
        place = (
            slice(part.start, part.start + part.classes.shape[0]),
            slice(part.col, part.col + part.classes.shape[1]),
        )
        classes[place] = part.classes
        if shares is not None:
            shares[:, place[0], place[1]] = part.probabilities
    return classes, shares


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90), width=st.integers(1, 130), overlap=st.integers(0, 16), cuts=st.sets(st.integers(1, 129), max_size=3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_same_bits_whatever_the_panels_and_the_order_in_which_tiles_end(
    height: int, width: int, overlap: int, cuts: set[int], seed: int
) -> None:
    edges = [0, *sorted(c for c in cuts if c < width), width]

    def cut(reader: Any, tile: int, over: int) -> list[Panel]:
        starts = tile_starts(width, tile, over)
        found = []
        for first, stop in itertools.pairwise(edges):
            touching = [j for j, s in enumerate(starts) if s < stop and s + tile > first]
            found.append(Panel(first, stop, range(touching[0], touching[-1] + 1)))
        return found

    dn = tiny.random_scene(SPEC, height, width, seed, hole=height > 1 and width > 1)

    def mapped(chosen: Panels | None, shuffle: int | None, shares: bool) -> tuple[np.ndarray, np.ndarray | None]:
        session: Any = Numbered(shuffle=shuffle)
        rows = predict_rows(session, Held(dn), overlap, classes=tiny.CLASSES, probabilities=shares, panels=chosen)
        return put_together(list(rows), height, width)

    plain = mapped(None, None, True)
    other = mapped(cut, seed, True)
    assert np.array_equal(plain[0], other[0]) and np.array_equal(plain[1], other[1], equal_nan=True)
    assert np.array_equal(plain[0], mapped(cut, seed, False)[0])


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 5000), block=st.sampled_from([16, 100, 256, 512]), most=st.integers(1, 1 << 22))
def test_panels_are_cut_along_blocks_and_cover_each_column_once(width: int, block: int, most: int) -> None:
    scene = Held(np.zeros((4, 1, width), np.uint16), block)
    found = panels(scene, 32, 4, most)
    assert [p.first for p in found] == [0, *[p.stop for p in found[:-1]]] and found[-1].stop == width
    starts = tile_starts(width, 32, 4)
    for panel in found:
        assert panel.first % tiles.ALIGNED == 0
        assert starts[panel.tiles.start] <= panel.first and starts[panel.tiles.stop - 1] + 32 >= panel.stop
    if len(found) > 1:
        step = max(tiles.ALIGNED, block)
        assert all((p.stop - p.first) * block * 8 <= max(most, step * block * 8) for p in found)


def test_blocks_as_wide_as_the_scene_are_not_cut() -> None:
    scene = Held(np.zeros((4, 1, 3000), np.uint16))
    scene.blocks = Blocks(1, 3000, 8)
    assert len(panels(scene, 32, 4, 1)) == 1


def test_a_file_written_in_panels_by_several_threads_is_the_same_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dn = tiny.random_scene(SPEC, 300, 700)
    path = tiny.write_scene(
        tmp_path / "s.tif", dn, tiny.NAMES, tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    found = []
    for name, most, cores in (("a.tif", 1 << 30, 1), ("b.tif", 1, 1), ("c.tif", 1, 3)):
        monkeypatch.setattr("rsedge.runtimes.inference.tiles.PANEL_BYTES", most)
        monkeypatch.setattr("rsedge.runtimes.inference.geotiff_out.cpu_count", lambda n=cores: n)
        session: Any = Numbered()
        session.device = "CPU"
        with SceneReader(path, SPEC) as reader:
            record = infer_scene(session, reader, tmp_path / name, tiny.CLASSES, None, tmp_path / f"p{name}")
        with rasterio.open(tmp_path / name) as one, rasterio.open(tmp_path / f"p{name}") as two:
            found.append((one.read(), two.read(), record["pixels"], record["nodata_pixels"]))
    for other in found[1:]:
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[0][:2], other[:2], strict=True))
        assert found[0][2:] == other[2:]
    assert (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def test_memory_does_not_grow_with_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what NumPy holds: panels of a wide scene take as much as one of a narrow scene, whatever the height."""

    class Made(Held):
        def __init__(self, height: int, width: int) -> None:
            super().__init__(np.zeros((4, 1, 1), np.uint16))
            self.height, self.width = height, width

        def read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
            return np.ones((4, height, width), np.uint16), np.zeros((height, width), bool)

    monkeypatch.setattr(tiles, "PANEL_BYTES", 256 * 16 * 8)
    monkeypatch.setattr(tiles, "_CHUNK", 128)
    session: Any = Numbered()

    def peak(height: int, width: int) -> int:
        scene: Any = Made(height, width)
        list(predict_rows(session, scene, panels=lambda r, t, o: [Panel(0, 32, range(1))]))
        tracemalloc.start()
        try:
            for _ in predict_rows(session, scene, panels=panels):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    narrow, wide = peak(64, 256), peak(160, 2048)
    assert wide < 1.2 * narrow + 100_000


@pytest.mark.parametrize("how", ["nan", "error"])
def test_a_tile_that_fails_is_nodata_and_the_scene_goes_on(how: str) -> None:
    dn = tiny.random_scene(SPEC, 90, 120)
    dn[:, 28, 56] = 7  # the first pixel of the tile in row 1, column 2
    session: Any = Numbered(lambda first: how if first == 7 else "")
    run, scene = SceneRun(), Held(dn)
    classes, _ = put_together(list(predict_rows(session, scene, run=run)), 90, 120)
    whole, _ = put_together(list(predict_rows(Numbered(), scene)), 90, 120)  # type: ignore[arg-type]
    lost = np.zeros((90, 120), bool)
    lost[28:60, 56:88] = True
    assert (classes[lost] == 255).all() and np.array_equal(classes[~lost], whole[~lost])
    record = run.record()
    assert [(t["row"], t["col"]) for t in record["failed_tiles"]] == [(28, 56)] and record["failed_tiles_count"] == 1
    assert ("NaN" if how == "nan" else "lost this tile") in record["failed_tiles"][0]["why"]
    assert "1 tiles FAILED" in text_of(record) and "1 of 20 tiles FAILED" in str(warning_of(run))
    with pytest.raises(IntegrityError if how == "nan" else RequestError, match="NaN" if how == "nan" else "lost this"):
        list(predict_rows(session, scene))  # nobody is told


def test_a_tile_in_two_panels_is_one_that_failed_and_earlier_ones_end_no_scene_that_goes_on() -> None:
    dn = tiny.random_scene(SPEC, 90, 120)
    dn[:, 28, 28] = 7
    cut: Panels = lambda reader, tile, overlap: [Panel(0, 48, range(2)), Panel(48, 120, range(1, 4))]  # noqa: E731
    run = SceneRun()
    list(predict_rows(Numbered(lambda first: "error" if first == 7 else ""), Held(dn), panels=cut, run=run))  # type: ignore[arg-type]
    assert [(t.row, t.col) for t in run.failed] == [(28, 28)]
    # Rows that another process finished, with more failures than a model may begin with, and the tile on which this one begins.
    run = SceneRun()
    run.take([{"row": 0, "col": col, "why": "lost"} for col in range(20)])
    dn[:, 0, 0] = 7
    rows = list(predict_rows(Numbered(lambda first: "error" if first == 7 else ""), Held(dn), run=run, done=1))  # type: ignore[arg-type]
    assert len(rows) == 3 and len(run.failed) == 20 + 1


def test_where_every_tile_fails_it_is_no_tile() -> None:
    scene = Held(tiny.random_scene(SPEC, 90, 120))
    for how, error in (("nan", IntegrityError), ("error", RequestError), ("crash", MissingCapability)):
        session: Any = Numbered(lambda first, how=how: how)
        for run in (None, SceneRun()):
            with pytest.raises(error, match="NaN or infinity" if how == "nan" else "lost this tile"):
                list(predict_rows(session, scene, run=run))


def test_images_and_chips_go_on_and_say_what_failed(tmp_path: Path) -> None:
    class Means(Numbered):
        def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
            found = super().__call__(inputs)
            return {**found, "logits": found["logits"].mean((2, 3))}

    dn = tiny.random_scene(SPEC, 90, 120)
    dn[:, 28, 56] = dn[:, 32, 64] = 7
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES)
    manifest: Any = SimpleNamespace(finer=1, input_spec=SPEC, classes=tiny.NAMES[:3])
    for how in ("nan", "error"):
        session: Any = Numbered(lambda first, how=how: how if first == 7 else "")
        session.device = "CPU"
        with SceneReader(path, SPEC) as reader:
            record = infer_image(session, reader, tmp_path / "o.tif", manifest)
        assert [(t["row"], t["col"]) for t in record["run"]["failed_tiles"]] == [(28, 56)]
        assert record["nodata_pixels"] >= 32 * 32
        run = SceneRun()
        chips: Any = Means(lambda first, how=how: how if first == 7 else "")
        grid = chip_vectors(chips, Held(dn), run=run)  # type: ignore[arg-type]
        assert np.isnan(grid[:, 1, 2]).all() and np.isfinite(grid[:, 1, 1]).all() and run.tiles == 2 * 3 - 1
        assert [(t.row, t.col) for t in run.failed] == [(32, 64)]
        with pytest.raises((IntegrityError, RequestError), match=r"NaN or infinity|lost this tile"):
            chip_vectors(chips, Held(dn))  # type: ignore[arg-type]


def test_a_failed_self_test_ends_the_scene(tmp_path: Path) -> None:
    class Damaged(Numbered):
        def stream(self, inputs: Any) -> Iterator[dict[str, np.ndarray]]:
            for n, found in enumerate(super().stream(inputs)):
                if n == 4:
                    raise IntegrityError("self-test failed")
                yield found

    session: Any = Damaged()
    session.device = "CPU"
    with pytest.raises(IntegrityError, match="self-test failed"):
        infer_scene(session, Held(tiny.random_scene(SPEC, 90, 120)), tmp_path / "o.tif", tiny.CLASSES)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir()) and threads_end()


def threads_end() -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if not [t for t in threading.enumerate() if t.name.startswith("rsedge-")]:
            return True
        time.sleep(0.01)
    return False


def test_errors_and_interruptions_end_the_threads() -> None:
    def items(error: BaseException | None) -> Iterator[int]:
        yield from range(3)
        if error is not None:
            raise error
        while True:
            yield 1

    with ahead(items(ValueError("made")), 2) as given:
        assert [next(given), next(given), next(given)] == [0, 1, 2]
        with pytest.raises(ValueError, match="made"):
            next(given)
    with pytest.raises(KeyboardInterrupt), ahead(items(None), 2) as given:
        next(given)
        raise KeyboardInterrupt

    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("worked")
        done.append(item)

    with behind(done.append, 1) as give:
        for n in range(5):
            give(n)
    assert done == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="worked"), behind(work, 1) as give:
        for n in range(1000):
            give(n)
    with pytest.raises(KeyboardInterrupt), behind(lambda n: time.sleep(0.01), 4) as give:
        give(1)
        raise KeyboardInterrupt
    assert threads_end()


def test_the_record_of_a_run_adds_up(tmp_path: Path) -> None:
    dn = tiny.random_scene(SPEC, 130, 90)
    dn[:, :70] = 0
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES)
    folder = tiny.make_bundle(tmp_path / "b", SPEC)
    with Bundle.open(folder) as opened, opened.session(threads=1) as session, SceneReader(path, SPEC) as reader:  # type: ignore[attr-defined]
        assert isinstance(session, Session)
        run = infer_scene(session, reader, tmp_path / "o.tif", tiny.CLASSES)["run"]
    rows, cols = len(tile_starts(130, 32, 4)), len(tile_starts(90, 32, 4))
    assert run["tiles"] + run["skipped_tiles"] == rows * cols and run["skipped_tiles"] >= 2 * cols
    assert run["processor_s"] == pytest.approx(sum(run["seconds"].values()), abs=0.01) and run["over_inference"] > 0
    assert run["seconds"]["infer"] > 0 and not run["failed_tiles"]


def test_the_command_tells_of_failed_tiles_by_its_exit_code(
    bundle: Callable[..., Path],
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rsedge.runtimes.openvino.session import OpenVinoSession

    dn = tiny.random_scene(SPEC, 90, 120)
    dn[:, 28, 56] = 7
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES)
    run = OpenVinoSession._run

    def fails(self: Any, prepared: np.ndarray) -> dict[str, np.ndarray]:
        if prepared[0, 0, 0, 0] == 7:
            raise RequestError("the device lost this tile")
        return run(self, prepared)

    def one_by_one(self: Any, inputs: Any) -> Iterator[dict[str, np.ndarray]]:
        for one in inputs:
            yield self(one)

    monkeypatch.setattr(OpenVinoSession, "_run", fails)
    monkeypatch.setattr(OpenVinoSession, "stream", one_by_one)
    code, out, _ = cli("infer", bundle(), path, "--output", tmp_path / "o.tif", "--json")
    record = json.loads(out)
    assert code == 3 and [(t["row"], t["col"]) for t in record["run"]["failed_tiles"]] == [(28, 56)]
    assert record["self_test"]["tests"] == 2
    with rasterio.open(tmp_path / "o.tif") as written:
        assert (written.read(1)[28:60, 56:88] == 255).all() and written.read(1)[0, 50] != 255
    code, out, _ = cli("infer", bundle(), path, "--output", tmp_path / "o.tif")
    assert code == 3 and "1 tiles FAILED and have no answer" in out and "processor seconds: read" in out
    with rsedge.load(bundle()) as opened:
        with pytest.warns(UserWarning, match="1 of 20 tiles FAILED .* row 28, column 56: the device lost"):
            opened.predict(path)
        labels = tiny.write_scene(tmp_path / "l.tif", np.ones((1, 90, 120), np.uint8), None)
        with pytest.raises(RequestError, match="the device lost this tile"):
            opened.evaluate(path, labels)
