"""Tiled inference equals per-pixel inference for a per-pixel model, whatever the size and the overlap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.scenes.geotiff import SceneReader
from rsedge.runtimes import Bundle, Session
from rsedge.runtimes.inference.blending import softmax
from rsedge.runtimes.inference.evaluate import block_edge, evaluate_scene
from rsedge.runtimes.inference.scene import infer_scene, predict_rows
from rsedge.runtimes.inference.tiles import tile_starts, tile_weights
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


class ArrayScene:
    """A scene in memory."""

    def __init__(self, dn: np.ndarray) -> None:
        self.dn, self.spec, self.path = dn, SPEC, Path("memory")
        _, self.height, self.width = dn.shape
        self.crs = self.transform = None
        self.reads: list[tuple[int, int]] = []

    def read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        self.reads.append((row, height))
        dn = self.dn[:, row : row + height, col : col + width]
        return dn, ~SPEC.valid(dn)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tiny.make_bundle(tmp_path_factory.mktemp("scene") / "b", SPEC)
    with Bundle.open(folder) as opened, opened.session(threads=1) as one:  # type: ignore[attr-defined]
        yield one


def whole(session: Session, scene: Any, overlap: int | None) -> tuple[np.ndarray, np.ndarray]:
    rows = list(predict_rows(session, scene, overlap, classes=tiny.CLASSES, probabilities=True))
    only = np.concatenate([r.classes for r in predict_rows(session, scene, overlap)])
    assert np.array_equal(only, np.concatenate([r.classes for r in rows]))
    assert [r.start for r in rows] == np.cumsum([0, *(len(r.classes) for r in rows[:-1])]).tolist()
    return np.concatenate([r.classes for r in rows]), np.concatenate([r.probabilities for r in rows], axis=1)


def expected(dn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits, valid = tiny.reference(SPEC, dn)
    share = softmax(logits)
    top = np.sort(share, axis=0)
    return np.where(valid, share.argmax(0), 255), share, (top[-1] - top[-2] > 1e-4) | ~valid


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 110), width=st.integers(1, 110), overlap=st.integers(0, 16), seed=st.integers(0, 99))
def test_blending_equals_direct_prediction(session: Session, height: int, width: int, overlap: int, seed: int) -> None:
    dn = tiny.random_scene(SPEC, height, width, seed, hole=height > 1 and width > 1)
    classes, probabilities = whole(session, ArrayScene(dn), overlap)
    direct, share, clear = expected(dn)
    assert classes.shape == (height, width) and classes.dtype == np.uint8
    assert np.array_equal(classes[clear], direct[clear])
    np.testing.assert_allclose(probabilities[:, direct != 255], share[:, direct != 255], atol=1e-4)
    assert np.isnan(probabilities[:, direct == 255]).all()


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(1, 2000),
    tile=st.sampled_from([16, 32, 64]),
    part=st.floats(0, 0.5),
    first=st.integers(-999, 999),
)
def test_weights_sum_to_one_everywhere(length: int, tile: int, part: float, first: int) -> None:
    overlap = int(part * tile)
    starts = tile_starts(length, tile, overlap, first)
    weights = tile_weights(starts, tile, overlap)
    total = np.zeros(max(length, tile))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert weights.min() >= 0 and starts[0] == 0 and starts[-1] == max(0, length - tile)


def test_tiles_without_a_seen_pixel_are_left_out(session: Session) -> None:
    dn = tiny.random_scene(SPEC, 130, 90)
    dn[:, :70] = 0
    dn[:, :, 60:] = 0
    classes, _ = whole(session, ArrayScene(dn), 4)
    direct, _, clear = expected(dn)
    assert np.array_equal(classes[clear], direct[clear]) and (classes[:70] == 255).all()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(40, 260),
    first=st.integers(0, 259),
    rows=st.integers(1, 260),
    overlap=st.integers(0, 16),
    outside=st.booleans(),
)
def test_rows_without_a_seen_pixel_at_the_start_the_end_or_between(
    session: Session, height: int, first: int, rows: int, overlap: int, outside: bool
) -> None:
    dn = tiny.random_scene(SPEC, height, 40)
    hidden = np.zeros(height, dtype=bool)
    hidden[first : first + rows] = True
    dn[:, ~hidden if outside else hidden] = 0
    if not SPEC.valid(dn).any():
        return
    classes, _ = whole(session, ArrayScene(dn), overlap)
    direct, _, clear = expected(dn)
    assert classes.shape == (height, 40) and np.array_equal(classes[clear], direct[clear])


def test_each_row_is_read_once(session: Session) -> None:
    scene = ArrayScene(tiny.random_scene(SPEC, 200, 40))
    list(predict_rows(session, scene, 8))
    assert sum(n for _, n in scene.reads) == 200


def test_overlap_is_held_to_half_a_tile(session: Session) -> None:
    for overlap in (-1, 17):
        with pytest.raises(RequestError, match="between 0 and half a tile"):
            list(predict_rows(session, ArrayScene(tiny.random_scene(SPEC, 40, 40)), overlap))


def test_all_nodata_and_nan_logits(session: Session) -> None:
    with pytest.raises(RequestError, match="every pixel is nodata"):
        list(predict_rows(session, ArrayScene(np.zeros((4, 50, 50), np.uint16))))

    class Broken:
        input_spec = SPEC

        def stream(self, inputs: Any) -> Iterator[dict[str, np.ndarray]]:
            for one in inputs:
                out = session(one)
                yield {**out, "logits": out["logits"] * np.nan}

    with pytest.raises(IntegrityError, match="NaN or infinity"):
        list(predict_rows(Broken(), ArrayScene(tiny.random_scene(SPEC, 50, 50))))  # type: ignore[arg-type]


def test_files_keep_the_grid_and_name_the_classes(session: Session, tmp_path: Path) -> None:
    dn = tiny.random_scene(SPEC, 90, 300)
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES)
    seen: list[tuple[int, int]] = []
    with SceneReader(path, SPEC) as reader:
        record = infer_scene(
            session, reader, tmp_path / "o.tif", tiny.CLASSES, None, tmp_path / "p.tif", lambda *a: seen.append(a)
        )
    direct, share, clear = expected(dn)
    with rasterio.open(tmp_path / "o.tif") as out, rasterio.open(path) as source:
        assert out.crs == source.crs and out.transform == source.transform and out.dtypes == ("uint8",)
        assert out.nodata == 255 and out.profile["tiled"] and out.compression.name == "deflate"
        assert out.tags()["class_1"] == "cloud" and '"shadow"' in out.tags()["rsedge_classes"]
        assert np.array_equal(out.read(1)[clear], direct[clear])
    with rasterio.open(tmp_path / "p.tif") as out:
        assert out.descriptions == tiny.CLASSES and np.isnan(out.nodata) and out.dtypes == ("float32",) * 3
        np.testing.assert_allclose(out.read()[:, direct != 255], share[:, direct != 255], atol=1e-4)
    assert seen[-1][0] == seen[-1][1] and [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert record["nodata_pixels"] == 6 and sum(record["pixels"].values()) == 90 * 300 - 6


def test_the_same_bytes_twice(session: Session, tmp_path: Path) -> None:
    path = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 100, 100), tiny.NAMES)
    for name in ("a.tif", "b.tif"):
        with SceneReader(path, SPEC) as reader:
            infer_scene(session, reader, tmp_path / name, tiny.CLASSES)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_band_order_in_the_file_does_not_matter(session: Session, tmp_path: Path) -> None:
    dn = tiny.random_scene(SPEC, 50, 60)
    results = []
    for i, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2])):
        path = tiny.write_scene(tmp_path / f"{i}.tif", dn[order], tuple(tiny.NAMES[k] for k in order))
        with SceneReader(path, SPEC) as reader:
            results.append(whole(session, reader, None)[0])
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_a_failed_run_leaves_the_old_map_and_no_scraps(session: Session, tmp_path: Path) -> None:
    out = tmp_path / "o.tif"
    out.write_bytes(b"old")

    class Fails(ArrayScene):
        def read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
            if row > 50:
                raise IntegrityError("memory: damaged")
            return super().read(row, col, height, width)

    with pytest.raises(IntegrityError, match="damaged"):
        infer_scene(session, Fails(tiny.random_scene(SPEC, 200, 40)), out, tiny.CLASSES)
    assert out.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["o.tif"]


def test_outputs_that_cannot_be(session: Session, tmp_path: Path) -> None:
    path = tiny.write_scene(tmp_path / "s.tif", tiny.random_scene(SPEC, 40, 40), tiny.NAMES)
    before = path.read_bytes()
    with SceneReader(path, SPEC) as reader:
        with pytest.raises(RequestError, match="would overwrite"):
            infer_scene(session, reader, path, tiny.CLASSES)
        with pytest.raises(RequestError, match="the same file"):
            infer_scene(session, reader, tmp_path / "o.tif", tiny.CLASSES, None, tmp_path / "o.tif")
        with pytest.raises(RequestError, match=r"is a GeoTIFF .*call it o\.tif"):
            infer_scene(session, reader, tmp_path / "o.geojson", tiny.CLASSES)
        with pytest.raises(RequestError, match="is a folder"):
            infer_scene(session, reader, tmp_path, tiny.CLASSES)
        with pytest.raises(RequestError, match="cannot be written"):
            infer_scene(session, reader, path / "o.tif", tiny.CLASSES)
        with pytest.raises(IntegrityError, match="gives 3 classes"):
            infer_scene(session, reader, tmp_path / "o.tif", ["a", "b"])
    assert path.read_bytes() == before and not (tmp_path / "o.tif").exists()


def test_evaluation_counts(session: Session, tmp_path: Path) -> None:
    dn = tiny.random_scene(SPEC, 150, 140)
    direct, _, clear = expected(dn)
    labels = np.where(direct == 255, 0, direct).astype(np.uint8)
    labels[~clear] = 255
    labels[100:110] = (labels[100:110] + 1) % 3
    labels[5, 5] = 77
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES)
    truth = tiny.write_scene(tmp_path / "l.tif", labels[None], None, nodata=77)
    with SceneReader(path, SPEC) as reader:
        record = evaluate_scene(session, reader, truth, tiny.CLASSES)
    total = np.array(record["confusion"])
    assert record["n"] == total.sum() == 150 * 140 - 6 - 1 - (~clear).sum()
    assert total.sum() - np.trace(total) == 1400 - (~clear)[100:110].sum()
    assert record["nodata_pixels"] == 6 and record["ignored_pixels"] == 1 + (~clear).sum()
    assert record["accuracy"] == pytest.approx(np.trace(total) / total.sum())
    assert record["kappa_interval"][0] <= record["kappa"] <= record["kappa_interval"][1]
    assert record["blocks"] == 9 and record["block_pixels"] == 64 and record["classes"] == list(tiny.CLASSES)


def test_labels_that_do_not_fit(session: Session, tmp_path: Path) -> None:
    from rasterio.transform import from_origin

    dn = tiny.random_scene(SPEC, 40, 40)
    path = tiny.write_scene(tmp_path / "s.tif", dn, tiny.NAMES)
    good = np.zeros((1, 40, 40), dtype=np.uint8)
    strange = good.copy()
    strange[0, 3, 3:6] = (7, 9, 7)
    cases = [
        (tiny.write_scene(tmp_path / "v.tif", strange, None), r"no class \(0 to 2\): 7, 9.*--label-map .*--ignore 7"),
        (tiny.write_scene(tmp_path / "n.tif", good[:, 1:], None), "39x40"),
        (tiny.write_scene(tmp_path / "c.tif", good, None, crs="EPSG:32633"), "CRS"),
        (
            tiny.write_scene(tmp_path / "t.tif", good, None, transform=from_origin(500005, 5400000, 10, 10)),
            "0.50 pixels",
        ),
        (tiny.write_scene(tmp_path / "b.tif", np.repeat(good, 2, 0), None), "2 bands"),
        (tiny.write_scene(tmp_path / "i.tif", good + 255, None), "holds no label of any class"),
        (tiny.write_scene(tmp_path / "f.tif", np.full((1, 40, 40), 0.5, np.float32), None), "0.5"),
        (tmp_path / "none.tif", "no such file"),
    ]
    with SceneReader(path, SPEC) as reader:
        for labels, words in cases:
            with pytest.raises(RequestError, match=words):
                evaluate_scene(session, reader, labels, tiny.CLASSES)
        strange[strange == 9] = 7
        again = tiny.write_scene(tmp_path / "again.tif", strange, None)
        assert evaluate_scene(session, reader, again, tiny.CLASSES, ignore=7)["ignored_pixels"] == 3


def test_blocks_stay_few() -> None:
    assert block_edge(512, 512) == 64
    edge = block_edge(10980, 10980)
    assert edge % 64 == 0 and (10980 / edge) ** 2 <= 4096
