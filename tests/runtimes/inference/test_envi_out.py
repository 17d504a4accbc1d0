"""ENVI in and out, with GDAL where it reads what we write, and without any in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

import rsedge
from rsedge.data.scenes.envi import EnviRaster, write_header
from rsedge.data.scenes.envi_place import place_fields
from rsedge.data.scenes.raster_file import Transform
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec()
PLACE = Transform(10.0, 0.0, 5e5, 0.0, -10.0, 5.4e6)
CHILD = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rasterio", "affine", "zarr"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from rsedge.cli.main import run_app
codes = [run_app(arguments) for arguments in json.loads(sys.argv[1])]
assert not {"rasterio", "affine"} & set(sys.modules)
print(json.dumps(codes))
"""


def envi(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(image.tobytes())
    header = path.with_suffix(".hdr")
    header.write_bytes(
        write_header(path, image.shape, str(image.dtype), tiny.NAMES, 0, place_fields(PLACE, "EPSG:32632", path))
    )
    return header


def test_a_map_is_the_same_as_a_geotiff(bundle: Callable[..., Path], tmp_path: Path) -> None:
    scene = envi(tmp_path / "s.raw", tiny.random_scene(SPEC, 70, 60))
    with rsedge.load(bundle()) as opened:
        opened.predict(scene, tmp_path / "m.tif", probabilities=tmp_path / "p.tif", probability_type="uint8")
        record = opened.predict(scene, tmp_path / "m.img", probabilities=tmp_path / "p.img", probability_type="uint8")
        with pytest.raises(rsedge.RequestError, match="--cog is for GeoTIFFs"):
            opened.predict(scene, tmp_path / "n.img", cog=True)
        with pytest.raises(rsedge.RequestError, match="would overwrite"):
            opened.predict(scene, tmp_path / "s.img")
        data = tmp_path / "data.img"
        scene.rename(tmp_path / "data.img.hdr")
        (tmp_path / "s.raw").rename(data)
        with pytest.raises(rsedge.RequestError, match="would overwrite"):
            opened.predict(tmp_path / "data.img.hdr", data)
        with pytest.raises(rsedge.RequestError, match="would overwrite"):
            opened.predict_into(tmp_path / "data.img.hdr", tmp_path, name="data", form="img")
    assert record["footprint"] is not None and not (tmp_path / "n.img").exists()
    for name in "mp":
        with rasterio.open(tmp_path / f"{name}.tif") as tif, rasterio.open(tmp_path / f"{name}.img") as img:
            assert img.driver == "ENVI" and np.array_equal(tif.read(), img.read()) and img.nodata == 255
            assert img.crs == tif.crs and img.transform.almost_equals(tif.transform)
    with rasterio.open(tmp_path / "m.img") as file, rasterio.open(tmp_path / "m.tif") as tif:
        assert file.colormap(1)[1] == tif.colormap(1)[1]
    with EnviRaster(tmp_path / "m.hdr") as file:
        assert file.descriptions == ("class",) and file.nodatavals == (255,)


def test_it_flies_without_gdal(bundle: Callable[..., Path], tmp_path: Path) -> None:
    image = tiny.random_scene(SPEC, 40, 50)
    scene, made = envi(tmp_path / "s.bsq", image), str(bundle("onnxruntime-cpu-f32"))
    np.savez(
        tmp_path / "s.npz", image=image, bands=list(tiny.NAMES), crs="EPSG:4326", transform=[1e-4, 0, 11, 0, -1e-4, 48]
    )
    tiny.write_scene(tmp_path / "s.tif", image, tiny.NAMES)
    calls = [
        ["infer", made, str(scene), "-o", str(tmp_path / "envi.img")],
        ["infer", made, str(tmp_path / "s.npz"), "--output-dir", str(tmp_path / "out"), "--format", "img", "--any-gsd"],
        ["infer", made, str(tmp_path / "s.tif"), "-o", str(tmp_path / "tif.img")],
        ["infer", made, str(scene), "-o", str(tmp_path / "envi.tif")],
        ["inspect", made],
    ]
    done = subprocess.run([sys.executable, "-c", CHILD, json.dumps(calls)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 4, 4, 4], done.stderr
    assert "this command needs the Python module 'rasterio'. Install it: pip install rasterio" in done.stderr
    with rsedge.load(made) as opened:
        wanted = opened.predict(image)
    for name in ("envi.img", "out/s.img"):
        with rasterio.open(tmp_path / name) as file:
            assert np.array_equal(file.read(1), wanted)
    item = json.loads((tmp_path / "out/s.stac.json").read_text())
    assert item["bbox"] == pytest.approx([11, 47.996, 11.005, 48])
