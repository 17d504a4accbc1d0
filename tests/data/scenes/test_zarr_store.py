"""Zarr stores of strangers: what is read of them is bounded, unpickles nothing, and fails in words."""

from __future__ import annotations

import base64
import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.scenes.raster_file import Window
from rsedge.data.scenes.zarr_store import ZarrRaster

zarr = pytest.importorskip("zarr")
IMAGE = np.arange(4 * 40 * 50, dtype=np.uint16).reshape(4, 40, 50)
WHOLE = Window(0, 0, 50, 40)


def store(path: Path, version: int = 3, **about: Any) -> Path:
    """A group with an image, its coordinates and a system."""
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    group.create_array("scene", data=IMAGE, chunks=(2, 16, 32)).attrs.update(about)
    group.create_array("x", data=5e5 + 10.0 * np.arange(50))
    group.create_array("y", data=5.4e6 - 10.0 * np.arange(40))
    group.create_array("band", data=np.arange(4))
    group.create_array("spatial_ref", data=np.array(0)).attrs.update({"epsg_code": 32632})
    return path


def edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


class _Touches:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["scene", "x", "y", "band"])
@pytest.mark.parametrize(("codec", "kind"), [("pickle", "<f8"), ("pickle", "|O"), ("base64", "<f8")])
def test_every_array_that_is_read_is_held_against_the_codecs(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    """``base64`` is as unknown as ``pickle``, and no version of zarr refuses it by itself."""
    place = store(tmp_path / "a.zarr", 2)
    kind = "<U4" if name == "band" and codec == "base64" else kind
    edit(place / name / ".zarray", filters=[{"id": codec}], compressor=None, dtype=kind, fill_value=None)
    for chunk in (place / name).glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(_Touches(tmp_path / "ran")))
    with pytest.raises(
        RequestError, match=rf"'{name}' is stored with the codec '{codec}'" if codec == "base64" else codec
    ):
        ZarrRaster(place)
    assert not (tmp_path / "ran").exists()


def test_codecs_inside_others_are_seen(tmp_path: Path) -> None:
    place = store(tmp_path / "a.zarr")
    file = place / "y" / "zarr.json"
    inner = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "numcodecs.adler32", "configuration": {}},
    ]
    outer = {
        "chunk_shape": [10],
        "codecs": inner,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    edit(file, codecs=[{"name": "sharding_indexed", "configuration": outer}])
    with pytest.raises(RequestError, match="'y' is stored with the codec 'adler32'"):
        ZarrRaster(place)


def test_what_is_read_at_once_is_bounded(tmp_path: Path) -> None:
    for name, chunk, words in (
        ("scene", [1 << 12, 1 << 10, 1 << 10], r"'scene' is stored in chunks of 8192 MiB"),
        ("x", [1 << 40], r"'x' is stored in chunks of"),
    ):
        place = store(tmp_path / f"{name}.zarr")
        edit(place / name / "zarr.json", chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunk}})
        with pytest.raises(RequestError, match=words):
            ZarrRaster(place)
    place = store(tmp_path / "long.zarr")
    edit(place / "x" / "zarr.json", shape=[1 << 40])
    with pytest.raises(RequestError, match=r"'x' has 1099511627776 values for 50"):
        ZarrRaster(place)
    place = store(tmp_path / "band.zarr", 2)
    edit(place / "band" / ".zarray", dtype="<U200000000", fill_value="")
    with pytest.raises(RequestError, match="'band' holds more than"):
        ZarrRaster(place)


def test_blocks_are_the_chunks(tmp_path: Path) -> None:
    with ZarrRaster(store(tmp_path / "a.zarr")) as file:
        one, both, apart = (file.blocks(bands) for bands in ([1], [1, 2], [2, 3]))
        assert (one.height, one.width, one.pixel_bytes) == (16, 32, 4) and both == one and apart.pixel_bytes == 8
        for bands in ([1, 2, 3, 4], [3, 1], [2]):
            assert np.array_equal(file.read(bands, WHOLE), IMAGE[[b - 1 for b in bands]])
    place = tmp_path / "last.zarr"
    zarr.create_array(
        str(place),
        data=np.moveaxis(IMAGE, 0, -1),
        chunks=(8, 10, 4),
        shards=(16, 20, 4),
        dimension_names=["y", "x", "band"],
    )
    with ZarrRaster(place) as file:
        assert (file.blocks([1]).height, file.blocks([1]).width, file.blocks([1]).pixel_bytes) == (8, 10, 8)
        assert np.array_equal(file.read([4, 2], WHOLE), IMAGE[[3, 1]])


def test_units_and_nodata_are_read(tmp_path: Path) -> None:
    fill = base64.b64encode(struct.pack("<d", -9999.0)).decode()
    with ZarrRaster(
        store(tmp_path / "a.zarr", scale_factor=[0.1, 0.2, 0.3, 0.4], add_offset=1, _FillValue=fill)
    ) as file:
        assert (file.scales, file.offsets, file.nodatavals[0]) == ((0.1, 0.2, 0.3, 0.4), (1.0,) * 4, -9999.0)
        assert (file.crs, list(file.transform)) == ("EPSG:32632", [10, 0, 499995, 0, -10, 5400005])


def test_what_xarray_leaves_empty_in_zarr_2_is_nodata(tmp_path: Path) -> None:
    """It writes no attribute there; a store that is not its own has the 0 of every empty chunk, which says nothing."""
    for about, wanted in (({"_ARRAY_DIMENSIONS": ["band", "y", "x"]}, 9), ({}, None)):
        place = store(tmp_path / f"{wanted}.zarr", 2, **about)
        edit(place / "scene" / ".zarray", fill_value=9)
        with ZarrRaster(place) as file:
            assert file.nodatavals[0] == wanted
            assert file.missing([1], WHOLE, file.read([1], WHOLE), []).sum() == (wanted is not None)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"scale_factor": "much"}, "'scale_factor' is much; numbers"),
        ({"add_offset": [1, 2]}, "4 bands and 2 offsets"),
        ({"_FillValue": "none"}, "nodata value is none; a number"),
        ({"transform": ["a"] * 6}, "cannot be read as a Zarr store"),
        ({"wavelengths_nm": 5}, "cannot be read as a Zarr store"),
        ({"crs": {"type": "name"}}, "'crs' is .*EPSG code"),
        ({"proj:code": "OGC:CRS84"}, "'proj:code' is 'OGC:CRS84'; write an EPSG code"),
    ],
)
def test_attributes_that_make_no_sense_are_said(tmp_path: Path, about: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        ZarrRaster(store(tmp_path / "a.zarr", **about))


def test_damage_is_an_error_in_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a coordinate, of the pixels, and of an array's description, of which zarr prints nothing by itself."""
    place = store(tmp_path / "a.zarr")
    with ZarrRaster(place) as file:
        for chunk in (place / "scene" / "c").rglob("*"):
            if chunk.is_file():
                chunk.write_bytes(b"none")
        with pytest.raises(IntegrityError, match="cannot be read"):
            file.read([1], WHOLE)
    (place / "x" / "c" / "0").write_bytes(b"none")
    with pytest.raises(RequestError, match="cannot be read"):
        ZarrRaster(place)
    edit(place / "x" / "zarr.json", data_type="nothing")
    edit(place / "y" / "zarr.json", data_type="nothing")
    with pytest.raises(RequestError, match="cannot be read"):
        ZarrRaster(place)
    assert "Traceback" not in capfd.readouterr().err


def test_an_older_zarr_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr, "__version__", "2.18.7")
    with pytest.raises(MissingCapability, match=r"zarr 3\.1 .*here is 2\.18\.7"):
        ZarrRaster(tmp_path)
