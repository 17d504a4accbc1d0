"""Rasters are opened in one place, by the drivers named, alone: no other file, no network, nothing out of bounds."""

from __future__ import annotations

import ast
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster import open_raster, raster_in_memory, resampled
from rsedge.data.scenes.raster_kinds import PICTURES

ROOT = Path(__file__).parents[3]
ROOMS = ("data", "runtimes", "models", "compress", "export", "devices", "reports", "rsedge")
OPENERS = {"open", "DatasetReader", "MemoryFile", "WarpedVRT", "vrt"}


def written(path: Path, values: np.ndarray | None = None, **more: object) -> Path:
    values = np.full((2, 64, 64), 7, np.uint16) if values is None else values
    count, height, width = values.shape
    profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": from_origin(5e5, 5.4e6, 10, 10)} | more
    with rasterio.open(path, "w", count=count, height=height, width=width, dtype=values.dtype, **profile) as f:
        f.write(values)
    return path


def _opens(tree: ast.AST) -> Iterator[ast.AST]:
    """Places where a raster is opened to be read: ``rasterio.open`` without "w", or rasterio's own readers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rasterio"):
            yield from (node for alias in node.names if alias.name in OPENERS)
        if isinstance(node, ast.Attribute) and node.attr in OPENERS - {"open"} and "rasterio" in ast.unparse(node):
            yield node
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "rasterio.open":
            modes = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            if modes != ["w"]:
                yield node


def test_rasters_are_opened_in_one_place() -> None:
    files = [p for room in ROOMS for p in (ROOT / room).rglob("*.py")]
    found = {str(p.relative_to(ROOT)) for p in files if any(_opens(ast.parse(p.read_text())))}
    assert found == {"data/scenes/raster.py"}
    assert any(_opens(ast.parse("import rasterio\nrasterio.open(x)")))
    assert any(_opens(ast.parse("from rasterio.io import DatasetReader")))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        server.settimeout(0.2)
        yield server


def nobody_came(server: socket.socket) -> bool:
    try:
        server.accept()
    except TimeoutError:
        return True
    return False


def vrt(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def test_a_vrt_by_another_name_is_refused_by_its_own(tmp_path: Path, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    for number, source in enumerate([f"/vsicurl/http://127.0.0.1:{port}/a.tif", str(written(tmp_path / "other.tif"))]):
        path = tmp_path / f"{number}.tif"
        path.write_text(vrt(source))
        with pytest.raises(RequestError, match="it is a VRT, which names other files, not GeoTIFF"):
            open_raster(path)
        with pytest.raises(RequestError, match="VRT"), raster_in_memory(path.read_bytes(), PICTURES):
            pass
    assert nobody_came(listening)


def test_a_geotiff_that_names_overviews_elsewhere_fetches_nothing(tmp_path: Path, listening: socket.socket) -> None:
    path = written(tmp_path / "s.tif", np.full((3, 600, 600), 9, np.uint8))
    place = f"/vsicurl/http://127.0.0.1:{listening.getsockname()[1]}/o.tif"
    with rasterio.open(path, "r+") as f:
        f.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=place)
    from rsedge.data.scenes.images import read_rgb

    assert (read_rgb(path, 32) == 9).all()
    assert nobody_came(listening)


def test_pictures_shrink_as_gdal_would(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 90, 90)).astype(np.uint8)
    path = written(tmp_path / "s.tif", values)
    with rasterio.open(path) as f:
        wanted = f.read(out_shape=(3, 40, 40), resampling=Resampling.cubic)
    assert np.array_equal(resampled(values, 40), wanted)


def test_names_of_networks_and_archives_are_none(tmp_path: Path, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    own = written(tmp_path / "s.tif")
    for name in (f"/vsicurl/http://127.0.0.1:{port}/a.tif", f"http://127.0.0.1:{port}/a.tif", f"GTIFF_DIR:1:{own}",
                 f"GTIFF_RAW:{own}", f'NETCDF:"{own}":a', f"zip://{own}!a.tif", "/vsistdin/"):  # fmt: skip
        with pytest.raises(RequestError, match="no such file"):
            open_raster(Path(name))
    assert nobody_came(listening)


def test_a_name_that_reads_as_a_prefix_is_a_file_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GTIFF_RAW:s.tif", "a\nb.tif", "%s%n.tif", "ä ö.tif", "s.tif!x"):
        shutil.copy(written(tmp_path / "s.tif"), tmp_path / name)
        with open_raster(Path(name)) as f:
            assert f.read([1], Window(0, 0, 64, 64)).mean() == 7


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    for path, text in ((tmp_path / "pipe.tif", "no plain file"), (tmp_path, "is a folder"), (Path("/dev/zero"), "no plain file"),
                       (tmp_path / ("n" * 300 + ".tif"), "no file"), (Path("a\0b"), "no file")):  # fmt: skip
        with pytest.raises(RequestError, match=text):
            open_raster(path)


def test_values_that_a_file_beside_explains_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "s.tif")
    aux = tmp_path / "s.tif.aux.xml"
    aux.write_text("<PAMDataset><PAMRasterBand band='1'><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>")
    with pytest.raises(RequestError, match="NoDataValue"):
        open_raster(path)
    aux.write_text("<PAMDataset><PAMRasterBand band='1'><Metadata/></PAMRasterBand></PAMDataset>")
    with open_raster(path) as f:
        assert not f.unread
    bare = written(tmp_path / "bare.tif", crs=None, transform=Affine.identity())
    (tmp_path / "bare.tfw").write_text("10\n0\n0\n-10\n0\n0\n")
    with open_raster(bare) as f:
        assert "bare.tfw says where it lies" in f.unread[0] and len(f.unread) == 1 and f.transform.is_identity


def test_a_mask_beside_is_a_geotiff_of_the_same_size(tmp_path: Path) -> None:
    path = written(tmp_path / "s.tif")
    mask = np.full((1, 64, 64), 255, np.uint8)
    mask[0, :3] = 0
    written(tmp_path / "s.tif.msk", mask)
    with open_raster(path) as f:
        window = Window(0, 0, 64, 64)
        assert f.missing([1, 2], window, f.read([1, 2], window), []).sum() == 2 * 3 * 64
    written(tmp_path / "s.tif.msk", mask[:, :32])
    with pytest.raises(RequestError, match="mask"):
        open_raster(path)
    (tmp_path / "s.tif.msk").write_text(vrt(str(path)))
    with pytest.raises(RequestError, match="VRT"):
        open_raster(path)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"transform": Affine(0, 0, 5e5, 0, 0, 5e6)}, "no area"),
        ({"transform": Affine(10, 0, float("nan"), 0, -10, 5e6)}, "no area"),
    ],
)
def test_pixels_without_area_are_refused(tmp_path: Path, more: dict[str, object], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        open_raster(written(tmp_path / "s.tif", **more))


def test_headers_out_of_bounds_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "sparse_ok": True}
    for name, size in {
        "wide": {"width": 1 << 26, "height": 1, "tiled": True},
        "empty": {"width": 300_000, "height": 300_000, "tiled": True, "blockxsize": 16384, "blockysize": 16384},
        "block": {"width": 65536, "height": 65536, "compress": "deflate", "blockysize": 65536},
    }.items():
        path = tmp_path / f"{name}.tif"
        with rasterio.open(path, "w", **profile, **size):
            pass
        with pytest.raises(RequestError, match=r"up to|cannot hold"):
            open_raster(path)


def test_names_at_the_end_of_what_a_system_takes(tmp_path: Path) -> None:
    with open_raster(written(tmp_path / ("n" * 250 + ".tif"))) as raster:  # .msk behind it would be too long
        assert raster.count
    odd = tmp_path / os.fsdecode(b"odd\xff.tif")
    written(tmp_path / "plain.tif").rename(odd)
    with pytest.raises(RequestError, match=r"odd\\xff\.tif: a name that is no UTF-8"):
        open_raster(odd)


def test_a_system_that_names_a_pipe_as_its_grid_is_refused_at_once(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe.gsb")
    os.mkfifo(pipe)
    crs = (
        f'GEOGCS["x",DATUM["x",SPHEROID["x",6378388,297],EXTENSION["PROJ4_GRIDS","{"G" * len(pipe)}"]],'
        'PRIMEM["Greenwich",0],UNIT["Degree",0.0174532925199433]]'
    )
    path = tmp_path / "s.tif"
    shape = {"driver": "GTiff", "count": 1, "height": 4, "width": 4, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, geotiff_keys_flavor="ESRI_PE", **shape) as file:
        file.write(np.ones((1, 4, 4), np.uint8))
    content = path.read_bytes().replace(b"G" * len(pipe), pipe.encode())
    path.write_bytes(content)
    with pytest.raises(RequestError, match="names a file, which is not opened"):
        open_raster(path)
    with pytest.raises(RequestError, match="names a file"), raster_in_memory(content, PICTURES):
        pass
