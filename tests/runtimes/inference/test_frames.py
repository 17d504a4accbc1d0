"""Streams of frames: what is read, what is dropped at a rate, and what is said of each."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

import rsedge
from rsedge.data.errors import RequestError
from rsedge.runtimes.inference.frame_answers import palette_png, said_of
from rsedge.runtimes.inference.frames import Frame, Paced, as_input, check_places, frames_of, read_poses, run_frames
from tests.runtimes import tiny_models as tiny

RGB = tiny.spec(names=("red", "green", "blue"))


def nothing() -> np.ndarray:
    return np.zeros((3, 4, 4), np.uint8)


def numbered(count: int) -> Any:
    return (Frame(i, nothing) for i in range(count))


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        values = np.random.default_rng(i).integers(0, 255, (3, 40, 50), dtype=np.uint8)
        with rasterio.open(
            folder / f"f{i}.png", "w", driver="PNG", count=3, height=40, width=50, dtype="uint8"
        ) as file:
            file.write(values)
    return folder


def video(path: Path, count: int) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 20 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(0, 40), rate=st.one_of(st.none(), st.floats(0.5, 200)),
    costs=st.lists(st.floats(0, 0.5), min_size=40, max_size=40),
)  # fmt: skip
def test_frames_are_answered_or_counted_as_dropped(count: int, rate: float | None, costs: list[float]) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        assert seconds > 0
        now[0] += seconds

    coming = Paced(numbered(count), rate, lambda: now[0], sleep)
    taken = []
    for frame in coming:
        taken.append(frame.number)
        assert rate is None or frame.number / rate - 1e-9 <= now[0] < (frame.number + 1) / rate + 1e-9
        now[0] += costs[frame.number]
    assert len(taken) + coming.dropped == count and taken == sorted(set(taken))
    assert rate is not None or not coming.dropped


def test_one_that_fails_is_a_line_of_its_own() -> None:
    def answer(frame: Frame) -> dict[str, Any]:
        if frame.number == 1:
            raise RequestError("too dark")
        return {"vector": [1.0]} | ({"warnings": ["a tile FAILED"]} if frame.number else {})

    out = io.StringIO()
    found = run_frames(numbered(3), answer, out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (found["frames"], found["partly"], found["failed"], found["dropped"]) == (2, 1, 1, 0)
    assert [line.get("error") for line in lines] == [None, "too dark", None]


def test_a_folder_with_poses_through_the_command_line(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    made = tiny.make_bundle(tmp_path / "b", RGB)
    folder = pictures(tmp_path / "in", 2)
    (tmp_path / "gps.csv").write_text("File, lat, lon, note\nf0.png, 48.5, 11, first\n")
    more = ("--poses", tmp_path / "gps.csv", "--masks", tmp_path / "masks", "-o", tmp_path / "out.jsonl", "--json")
    code, text, _ = cli("frames", made, folder, "--scale", 1 / 255, *more)
    assert (code, json.loads(text)["frames"]) == (0, 2), text
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[0]["pose"] == {"lat": 48.5, "lon": 11, "note": "first"} and "pose" not in lines[1]
    with rsedge.load(made) as opened, rasterio.open(folder / "f0.png") as file:
        wanted = opened.predict(file.read().astype(np.float32) / np.float32(255))
    with rasterio.open(tmp_path / "masks/f0.png") as file:
        mask = file.read(1)
        assert file.colormap(1)[1][:3] == (0xF4, 0xF4, 0xF4)
    assert np.mean(mask == wanted) > 0.99
    assert lines[0]["classes"]["cloud"] == pytest.approx((mask == 1).sum() / (mask != 255).sum(), abs=1e-5)
    code, text, _ = cli("frames", made, folder, "-o", tmp_path / "out.jsonl")
    assert code == 5 and "--scale" in (tmp_path / "out.jsonl").read_text()


def test_nothing_that_is_read_is_written_over(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 2)
    before = [path.read_bytes() for path in sorted(folder.iterdir())]
    (tmp_path / "link").symlink_to(folder)
    made = tiny.make_bundle(tmp_path / "b", RGB)
    for more, words in (
        (("--masks", folder), "lies in"),
        (("--masks", tmp_path / "link"), "lies in"),
        (("--masks", folder / "masks"), "lies in"),
        (("--masks", made / "m"), "lies in the bundle"),
        (("-o", folder / "f1.png"), "would overwrite"),
        (("--masks", tmp_path / "m", "-o", tmp_path / "m/f0.png"), "may be the name of a mask"),
    ):
        code, _, err = cli("frames", made, folder, "--scale", 1 / 255, *more)
        assert code == 2 and words in " ".join(err.split()), err
    assert [path.read_bytes() for path in sorted(folder.iterdir())] == before and not (tmp_path / "m").exists()
    (folder / "f0.jpg").touch()
    with pytest.raises(RequestError, match=r"f0\.png: its mask would have the name of that of f0\.jpg"):
        check_places(folder, None, tmp_path / "m")
    check_places(folder, tmp_path / "o.jsonl", None)


def test_a_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    found = list(frames_of(video(tmp_path / "v.mp4", 5)))
    assert [f.number for f in found] == list(range(5)) and [f.time_s for f in found] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )
    for frame in found:
        pixels = frame.pixels()
        assert pixels.shape == (3, 32, 48) and abs(float(pixels.mean()) - 20 * frame.number) < 6
    (tmp_path / "v.mkv").write_bytes(b"#EXTM3U\nhttp://e.org/a.ts\n")
    with pytest.raises(RequestError, match="no whole video"):
        list(frames_of(tmp_path / "v.mkv"))


def test_what_is_no_stream_or_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="neither a video"):
        list(frames_of(tmp_path / "a.tif"))
    with pytest.raises(RequestError, match="holds no picture"):
        list(frames_of(tmp_path))
    for text, words in (("lat,lon\n1,2\n", "a column 'frame'"), ("frame,x\n1,2\n1,3\n", "stands there twice")):
        (tmp_path / "p.csv").write_text(text)
        with pytest.raises(RequestError, match=words):
            read_poses(tmp_path / "p.csv")


def test_bytes_are_what_somebody_says() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    turned = tiny.spec(names=("blue", "green", "red"), dtype="uint8")
    assert np.array_equal(as_input(pixels, turned, "f", None, None), pixels[::-1])
    assert np.allclose(as_input(pixels, RGB, "f", 0.1, 1.0), pixels * 0.1 + 1)
    with pytest.raises(RequestError, match="say how bytes become"):
        as_input(pixels, RGB, "f", None, None)
    with pytest.raises(RequestError, match="'nir' is missing"):
        as_input(pixels, tiny.spec(), "f", 1.0, None)


def test_every_form_of_an_answer_is_said() -> None:
    boxes = np.array([[1, 2, 3, 4, 0.5, 1]], np.float32)
    assert said_of(boxes, ["a", "b"], "f")["objects"] == [{"class": "b", "score": 0.5, "pixels": [1, 2, 3, 4]}]
    turned = np.array([[0, 0, 4, 10, 0.5, 1, 0]], np.float32)
    place = {"x": 2, "y": 5, "length": 10, "width": 4, "angle": -90}
    assert said_of(turned, ["a", "b"], "f")["objects"] == [{"class": "b", "score": 0.5, **place}]
    assert said_of(np.array([0.25, 1]), [], "f") == {"vector": [0.25, 1.0]}
    assert said_of(np.array([[0, 255], [1, 1]], np.uint8), ["a", "b"], "f") == {
        "classes": {"a": 0.333333, "b": 0.666667}, "nodata": 0.25,
    }  # fmt: skip
    with pytest.raises(RequestError, match="no form for frames"):
        said_of(np.zeros((2, 2, 2)), [], "f")


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_pngs_are_read_as_they_are_written(tmp_path_factory: pytest.TempPathFactory, height: int, width: int) -> None:
    values = np.random.default_rng(height).integers(0, 256, (height, width), dtype=np.uint8)
    path = tmp_path_factory.mktemp("png") / "a.png"
    path.write_bytes(palette_png(values, ["a"] * 3))
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), values)
