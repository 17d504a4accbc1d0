"""Objects of a store are read as files here: fetched once, anew when they changed, whole whatever the connection does."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from obstore.fsspec import FsspecStore

from rsedge.cli.main import run_app
from rsedge.data import objects
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.objects import address_of, at_hand, is_address, listed
from rsedge.data.scenes.kinds import files_read, kind_of, listed_suffixes
from tests.data.object_store import BUCKET, Store
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()


@pytest.fixture(scope="module")
def running() -> Iterator[Store]:
    store = Store()
    yield store
    store.close()


@pytest.fixture
def store(running: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in {**running.variables, "RSEDGE_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    FsspecStore.clear_instance_cache()
    running.drop(0)
    return running


def scene(folder: Path, seed: int = 0) -> bytes:
    return Path(tiny.write_scene(folder / "made.tif", tiny.random_scene(SPEC, 90, 70, seed), tiny.NAMES)).read_bytes()


def at(name: str) -> Path:
    return Path(f"s3://{BUCKET}/{name}")


def test_a_scene_is_fetched_once_and_anew_when_it_changed(store: Store, tmp_path: Path) -> None:
    store.put({"one/a.tif": scene(tmp_path)})
    path = at("one/a.tif")
    for _ in range(2):
        with kind_of(path).open(path, SPEC) as file:
            assert (file.height, file.width) == (90, 70)
    assert store.count("GET", "one/a.tif") == 1
    written = at_hand(path).stat().st_mtime
    shutil.rmtree(at_hand(path).parent)
    assert at_hand(path).stat().st_mtime == written and store.count("GET", "one/a.tif") == 2
    assert [one.name for one in files_read(path)] == ["a.tif"]
    store.put({"one/a.tif": scene(tmp_path, 1)})
    assert at_hand(path).read_bytes() == (tmp_path / "made.tif").read_bytes()


@pytest.mark.parametrize("every", [2, 3, 10])
def test_a_store_that_drops_requests_gives_every_byte(
    store: Store, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    monkeypatch.setattr(objects, "PART", 1000)
    monkeypatch.setattr(objects, "WAIT_S", 0.001)
    content = np.random.default_rng(every).bytes(5500)
    store.put({f"drop/{every}.npz": content})
    store.drop(every)
    assert at_hand(at(f"drop/{every}.npz")).read_bytes() == content
    assert len(store.asked) > 7


def test_commands_take_objects(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same maps as of files here, by `infer` and `archive`, with requests dropped; nothing is fetched twice."""
    own = tmp_path / "scenes" / "sub"
    own.mkdir(parents=True)
    for number in range(3):
        tiny.write_scene(own / f"s{number}.tif", tiny.random_scene(SPEC, 80, 90, number), tiny.NAMES)
    store.put({f"many/sub/{path.name}": path.read_bytes() for path in own.iterdir()})
    store.put({"many/.hidden/s.tif": b"", "many/a.md": b""})
    bundle = tiny.make_bundle(tmp_path / "bundle", SPEC, "openvino-cpu-f32")
    store.drop(10)
    assert run_app(["infer", str(bundle), str(tmp_path / "scenes"), "--output-dir", str(tmp_path / "own")]) == 0
    assert run_app(["infer", str(bundle), f"s3://{BUCKET}/many/", "--output-dir", str(tmp_path / "theirs")]) == 0
    (tmp_path / "list.txt").write_text("".join(f"s3://{BUCKET}/many/sub/s{number}.tif\n" for number in range(3)))
    into = ["--output-dir", str(tmp_path / "kept"), "--workers", "1"]
    assert run_app(["archive", str(bundle), str(tmp_path / "list.txt"), *into]) == 0
    for number in range(3):
        assert pixels(tmp_path / f"own/sub/s{number}.tif") == pixels(tmp_path / f"theirs/sub/s{number}.tif")
        assert pixels(tmp_path / f"own/sub/s{number}.tif") == pixels(tmp_path / f"kept/s{number}.tif")
        assert store.count("GET", f"many/sub/s{number}.tif") <= 2  # one of them may have been dropped
    records = [path.read_text() for path in (tmp_path / "kept").glob("s0*.json")]
    assert any(f"s3://{BUCKET}/many/sub/s0.tif" in text for text in records)
    assert run_app(["infer", str(bundle), f"s3://{BUCKET}/many/", "--output-dir", str(tmp_path / "theirs")]) == 0
    assert capsys.readouterr().err.count(": skipped") == 3


def pixels(path: Path) -> bytes:
    with rasterio.open(path) as file:
        return bytes(file.read(1).tobytes())


def test_what_belongs_to_a_scene_comes_with_it(store: Store, tmp_path: Path) -> None:
    store.put({"parts/e.hdr": b"h", "parts/e.img": b"i", "parts/other.img": b"o", "parts/t.tif": b"t", "parts/t.tif.msk": b"m",
               "parts/z.zarr/zarr.json": b"{}", "parts/z.zarr/b/c/0": b"0"})  # fmt: skip
    assert sorted(one.name for one in at_hand(at("parts/e.hdr")).parent.glob("e.*")) == ["e.hdr", "e.img"]
    assert at_hand(at("parts/t.tif")).with_name("t.tif.msk").read_bytes() == b"m"
    tree = at_hand(at("parts/z.zarr"))
    assert tree.name == "z.zarr" and (tree / "b/c/0").read_bytes() == b"0" and (tree / "zarr.json").is_file()
    found = listed(f"s3://{BUCKET}/parts/", listed_suffixes())
    assert [name for _, name in found] == ["e", "t", "z"]
    assert listed(f"s3://{BUCKET}/parts/*.tif", listed_suffixes()) == [(f"s3://{BUCKET}/parts/t.tif", "t")]


def test_what_is_not_there_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "TRIES", 2)
    with pytest.raises(RequestError, match=r"s3://scenes/none\.tif: no such object"):
        at_hand(at("none.tif"))
    with pytest.raises(RequestError, match=r"no such (object|bucket)"):
        at_hand(Path("s3://elsewhere/none.tif"))
    with pytest.raises(RequestError, match="is no name of an object"):
        at_hand(at("a/%2E%2E//x.tif\n"))
    with pytest.raises(RequestError, match="no object there is a scene"):
        listed(f"s3://{BUCKET}/nothing/", listed_suffixes())
    with pytest.raises(RequestError, match="web servers are not listed"):
        listed("https://127.0.0.1/scenes/", listed_suffixes())
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    FsspecStore.clear_instance_cache()
    with pytest.raises(MissingCapability, match="the store gave no answer, 2 times"):
        at_hand(at("none.tif"))

    def absent(scheme: str) -> None:
        raise ModuleNotFoundError("No module named 'obstore'")

    monkeypatch.setitem(objects._SCHEMES, "s3", objects._Scheme(absent, "obstore", True))
    with pytest.raises(MissingCapability, match=r"obstore.*rsedge\[scale\]"):
        at_hand(at("none.tif"))


def test_the_longest_unused_go_first(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MOST_BYTES", 2500)
    monkeypatch.setattr(objects, "_HELD", 0)
    store.put({f"room/{number}.npz": bytes(1000) for number in range(3)})
    kept = []
    for number in range(3):
        kept.append(at_hand(at(f"room/{number}.npz")))
        os.utime(kept[-1].parent / ".address", (number, number))
    assert [path.is_file() for path in kept] == [False, True, True]


def test_what_was_begun_and_cut_off_goes_too(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> bytes:
        raise KeyboardInterrupt

    store.put({f"cut/{number}.npz": bytes(1000) for number in range(2)})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(objects, "_part", cut)
        at_hand(at("cut/0.npz"))
    monkeypatch.setattr(objects, "MOST_BYTES", 1000)
    monkeypatch.setattr(objects, "_HELD", 0)
    assert at_hand(at("cut/1.npz")).stat().st_size == 1000
    assert len(list((tmp_path / "cache/objects").iterdir())) == 1
    assert at_hand(at("cut/0.npz")).read_bytes() == bytes(1000)


def test_a_file_of_a_web_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSEDGE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    content = scene(tmp_path)
    shutil.copy(tmp_path / "made.tif", folder / "a.tif")
    serve = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = Path(f"http://127.0.0.1:{server.server_port}/a.tif")
        assert at_hand(path).read_bytes() == content
        with pytest.raises(RequestError, match="no such object"):
            at_hand(path.with_name("b.tif"))
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@given(
    st.sampled_from(["s3", "gs", "abfs", "http", "https"]),
    st.lists(st.text("abc.-_?=*", min_size=1), min_size=1, max_size=3),
)
def test_an_address_is_the_same_as_a_path_and_as_text(scheme: str, parts: list[str]) -> None:
    parts = [part for part in parts if part not in (".", "..")] or ["a"]
    address = f"{scheme}://{'/'.join(parts)}"
    assert (
        is_address(address)
        and is_address(Path(address))
        and address_of(Path(address)) == address_of(address) == address
    )


@given(st.text())
def test_other_names_are_files(name: str) -> None:
    assert is_address(name) == name.startswith(("s3:/", "gs:/", "abfs:/", "http:/", "https:/")) or name.endswith(":/")


def test_a_catalogue_of_a_store_is_mapped(store: Store, tmp_path: Path) -> None:
    """Items by relative and by whole addresses; an item here may name assets there."""
    own = Path(tiny.write_scene(tmp_path / "scene.tif", tiny.random_scene(SPEC, 80, 90, 0), tiny.NAMES))
    bands = [{"name": name, "eo:common_name": name} for name in tiny.NAMES]

    def item(name: str, href: str) -> bytes:
        asset = {"href": href, "type": "image/tiff; application=geotiff", "bands": bands}
        return json.dumps({"type": "Feature", "stac_version": "1.1.0", "id": name, "assets": {"all": asset}}).encode()

    links = [{"rel": "item", "href": "./items/a.json"}, {"rel": "item", "href": f"s3://{BUCKET}/cat/items/b.json"}]
    store.put({
        "cat/scene.tif": own.read_bytes(), "cat/items/a.json": item("a", "../scene.tif"),
        "cat/items/b.json": item("b", f"s3://{BUCKET}/cat/scene.tif"),
        "cat/catalog.json": json.dumps({"type": "Catalog", "id": "c", "links": links}).encode(),
    })  # fmt: skip
    (tmp_path / "here.json").write_bytes(item("here", f"s3://{BUCKET}/cat/scene.tif"))
    bundle = tiny.make_bundle(tmp_path / "bundle", SPEC, "openvino-cpu-f32")
    sources = [f"s3://{BUCKET}/cat/catalog.json", str(tmp_path / "here.json"), str(own)]
    assert run_app(["infer", str(bundle), *sources, "--output-dir", str(tmp_path / "maps")]) == 0
    assert len({pixels(tmp_path / f"maps/{name}.tif") for name in ("a", "b", "here", "scene")}) == 1
