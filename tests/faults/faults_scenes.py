"""Scenes and label rasters, broken: bytes, headers, units, places on Earth, values, other kinds of files, what lies beside them."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine, from_origin

from rsedge.data.scenes.geotiff import SceneReader
from rsedge.data.scenes.label_files import LabelReader
from rsedge.data.scenes.physical_scene import read_physical
from rsedge.runtimes import Bundle
from rsedge.runtimes.inference.object_files import write_boxes
from rsedge.runtimes.inference.scene import infer_scene
from rsedge.runtimes.inspecting import describe
from tests.faults.kinds import Result, kind, told
from tests.faults.material import damaged, material
from tests.runtimes import tiny_models as tiny

SPEC = tiny.spec(32)
SIZE = 48
MORE = 3 << 30
"""Bytes of address space, besides what the process has, beyond which a small file has made it ask for too much."""


@functools.cache
def dn() -> npt.NDArray[np.uint16]:
    return tiny.random_scene(SPEC, SIZE, SIZE)


def scene(path: Path, values: npt.NDArray[Any] | None = None, **profile: Any) -> Path:
    return tiny.write_scene(path, dn() if values is None else values, tiny.NAMES, **profile)


def bounded() -> None:
    """No attempt may take more than so much memory; what asks for more gets a MemoryError, which is no error of ours."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MORE, resource.getrlimit(resource.RLIMIT_AS)[1]))


def sound(path: Path, **options: Any) -> Callable[[], bool]:
    """Whether a scene, where it is taken, gives digital numbers of the contract for all its pixels, through every reader."""

    def right() -> bool:
        with SceneReader(path, SPEC, any_gsd=True, **options) as reader:
            if reader.height * reader.width > 1 << 22:
                return True  # took it as a large one; reading it all is another question
            found, missing = reader.read(0, 0, reader.height, reader.width)
            wanted = (len(SPEC.bands), reader.height, reader.width)
        loose = read_physical(path, scale=options.get("scale", 1e-4), nan_nodata=True)
        describe(path)
        seen = loose.image[:, loose.valid]
        return (
            found.shape == wanted and found.dtype == np.uint16 and not missing.all() and bool(np.isfinite(seen).all())
        )

    return right


def equal(path: Path, wanted: npt.NDArray[Any], hidden: npt.NDArray[np.bool_], **options: Any) -> Callable[[], bool]:
    """Whether a scene gives just these digital numbers, where ``hidden`` says missing."""

    def right() -> bool:
        with SceneReader(path, SPEC, any_gsd=True, **options) as reader:
            found, missing = reader.read(0, 0, reader.height, reader.width)
        return bool(np.array_equal(missing, hidden) and np.array_equal(found[:, ~hidden], wanted[:, ~hidden]))

    return right


@kind("scene: bytes of a GeoTIFF damaged")
def bytes_damaged(rng: np.random.Generator, folder: Path) -> Result:
    bounded()
    profile = [
        {},
        {"compress": "deflate"},
        {"compress": "lzw", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "zstd"},
    ]
    path = scene(folder / "s.tif", **profile[int(rng.integers(len(profile)))])
    content, way = damaged(path.read_bytes(), rng)
    path.write_bytes(content)
    return told(way, sound(path))


_EXTREME = (0, 1, 2, 3, 255, 256, 65535, 65536, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def directory(content: bytes) -> Iterator[tuple[int, int]]:
    """Tag and place of each entry of a classic little-endian TIFF's first directory."""
    start = struct.unpack_from("<I", content, 4)[0]
    for i in range(struct.unpack_from("<H", content, start)[0]):
        place = start + 2 + 12 * i
        yield struct.unpack_from("<H", content, place)[0], place


@kind("scene: fields of the header at their extremes", few=20)
def header_extreme(rng: np.random.Generator, folder: Path) -> Result:
    bounded()
    tiled: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 16} if rng.random() < 0.5 else {}
    path = scene(folder / "s.tif", compress=str(rng.choice(["none", "deflate", "lzw"])), **tiled)
    content = bytearray(path.read_bytes())
    entries = list(directory(bytes(content)))
    done = []
    for _ in range(int(rng.integers(1, 4))):
        tag, place = entries[int(rng.integers(len(entries)))]
        value = int(rng.choice(_EXTREME)) if rng.random() < 0.7 else int(rng.integers(1 << 32))
        where = ["type", "count", "value", "value", "value"][int(rng.integers(5))]
        if where == "type":
            struct.pack_into("<H", content, place + 2, value % 20)
        else:
            struct.pack_into("<I", content, place + (4 if where == "count" else 8), value)
        done.append(f"{where} of tag {tag} = {value}")
    path.write_bytes(content)
    return told("; ".join(done), sound(path))


@kind("scene: a header that promises more than the file", few=5)
def header_promises(rng: np.random.Generator, folder: Path) -> Result:
    bounded()
    path = folder / "s.tif"
    edge = [1 << int(rng.integers(4, 28)) for _ in range(2)]
    count = int(rng.choice([1, 4, 13, 5000, 65535])) if max(edge) < 1 << 14 else 1
    block = {"tiled": True, "blockxsize": 1 << int(rng.integers(4, 15)), "blockysize": 1 << int(rng.integers(4, 15))}
    layout = block if rng.random() < 0.7 else {"blockysize": edge[0]}
    grid = {
        "height": edge[0],
        "width": edge[1],
        "count": count,
        "dtype": "uint16",
        "interleave": str(rng.choice(["band", "pixel"])),
    }
    try:
        with rasterio.open(
            path, "w", driver="GTiff", sparse_ok=True, bigtiff="yes", compress="deflate", **grid, **layout
        ) as f:
            for i in range(1, min(count, 13) + 1):
                f.set_band_description(i, (tiny.NAMES * 4)[i - 1])
    except rasterio.errors.RasterioError:
        return Result("harmless", f"GDAL does not write {grid} {layout}")
    return told(f"{path.stat().st_size} bytes: {grid} {layout}", sound(path, bands=None))


_SCALES = (
    0.0,
    -1.0,
    -1e-4,
    1e300,
    -1e300,
    1e-300,
    1e-30,
    1e30,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e-4,
    2e-4,
    1.0,
)


@kind("scene: scale and offset of every size")
def units(rng: np.random.Generator, folder: Path) -> Result:
    scale, offset = float(rng.choice(_SCALES)), float(rng.choice([*_SCALES, 0.0, 0.0, 0.0]))
    tags, is_float = rng.random() < 0.5, rng.random() < 0.5
    values = dn().astype(np.float32) if is_float else dn()
    said = {"scales": (scale,) * 4, "offsets": (offset,) * 4} if tags else {}
    path = scene(folder / "s.tif", values, **said)
    physical = values * np.float64(scale) + np.float64(offset)
    if is_float and tags and (scale, offset) == (1.0, 0.0):
        wanted = SPEC.to_dn(values)
    else:
        wanted = SPEC.to_dn(physical) if np.isfinite(physical).all() else np.zeros_like(dn())
    hidden = np.zeros((SIZE, SIZE), bool)
    # In a file of plain digital numbers 0 in all bands is missing; a scale says otherwise, unless it is the contract's.
    if not is_float and ((scale, offset) == (1e-4, 0.0) or (tags and (scale, offset) == (1.0, 0.0))):
        wanted, hidden = dn(), (dn() == 0).all(axis=0)
    options = {} if tags else {"scale": scale, "offset": offset}
    what = f"{'tags' if tags else 'options'} {values.dtype} scale {scale} offset {offset}"
    sane = 0 < scale < 1e13 and abs(offset) < 1e13
    return told(what, lambda: equal(path, wanted, hidden, **options)() and sane)


_NUMBERS = (0.0, 1e-320, 1e-12, 0.5, 10.0, -10.0, 1e6, 1e12, 1e300, float("nan"), float("inf"))
_CRS = (
    None, "EPSG:32632", "EPSG:4326", "EPSG:3857", "EPSG:2263", "EPSG:3031", "EPSG:4978", "EPSG:7415", "EPSG:5773",
    "EPSG:5819", "EPSG:5800",
    'LOCAL_CS["drone site",UNIT["metre",1]]',
    'LOCAL_CS["site in feet",LOCAL_DATUM["x",0],UNIT["foot",0.3048],AXIS["X",EAST],AXIS["Y",NORTH]]',
    'ENGCRS["plant grid",EDATUM["plant"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
    'ENGCRS["n\u00f6n \\" ascii",EDATUM["?"],CS[Cartesian,2],AXIS["x",south],AXIS["y",west],LENGTHUNIT["inch",0.0254]]',
    'PROJCS["broken",GEOGCS["g",DATUM["d",SPHEROID["s",6378137,298.257]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Nonsense"],UNIT["metre",1]]',
    "+proj=ortho +lat_0=40 +lon_0=10", "+proj=geos +h=35785831 +sweep=x", "+proj=gnom +lat_0=90",
    "+proj=tmerc +lat_0=0 +lon_0=9 +k=0",
    "+proj=utm +zone=32 +a=1737400 +b=1737400", "+proj=longlat +a=3396190 +b=3376200", "+proj=lcc +lat_1=40 +lat_2=40.0000001",
)  # fmt: skip


@functools.cache
def _session() -> Any:
    bundle = Bundle.open(material().bundle, material().key)
    return bundle.session(threads=1)


def placed(path: Path, rng: np.random.Generator) -> str:
    """A scene at a random place; says which."""
    crs = _CRS[int(rng.integers(len(_CRS)))]
    way = str(rng.choice(["plain", "far", "turned", "random", "points"]))
    origin = [float(v) for v in rng.choice([0.0, 5e5, 5.4e6, -1e7, 1e9, 91.0, 181.0, -90.0], 2)]
    transform = {
        "plain": from_origin(5e5, 5.4e6, 10, 10),
        "far": from_origin(*origin, 10, 10),
        "turned": from_origin(5e5, 5.4e6, 10, 10)
        @ Affine.rotation(float(rng.uniform(0, 360)))
        @ Affine.shear(float(rng.uniform(0, 89))),
        "random": Affine(*(float(v) for v in rng.choice(_NUMBERS, 6))),
        "points": Affine.identity(),
    }[way]
    more: dict[str, Any] = {"crs": crs, "transform": transform}
    if way == "points":
        from rasterio.control import GroundControlPoint

        more = {
            "crs": crs or "EPSG:4326",
            "transform": None,
            "gcps": [
                GroundControlPoint(r, c, *map(float, rng.choice(_NUMBERS, 2))) for r, c in ((0, 0), (0, 40), (40, 0))
            ],
        }
    try:
        scene(path, **more)
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError, TypeError, ValueError):
        scene(path, crs=None, transform=transform if way != "points" else from_origin(5e5, 5.4e6, 10, 10))
        return f"no CRS ({crs} is none to GDAL), {way} {tuple(transform)[:6]}"
    return f"{crs} {way} {tuple(transform)[:6]}"


@kind("scene: CRS and transforms of every kind, mapped, drawn as boxes and described", few=10)
def place_on_earth(rng: np.random.Generator, folder: Path) -> Result:
    path = folder / "s.tif"
    what = placed(path, rng)

    def right() -> bool:
        record = describe(path)
        if record["gsd_m"] is not None and not 0 < record["gsd_m"] < float("inf"):
            return False
        with SceneReader(path, SPEC, any_gsd=True) as reader:
            logits, _ = tiny.reference(SPEC, dn())
            infer_scene(_session(), reader, folder / "out.tif", tiny.CLASSES, 0)
            with rasterio.open(folder / "out.tif") as out:
                classes = out.read(1)
            same = np.array_equal(classes[2:, 3:], logits.argmax(0)[2:, 3:])
            boxes = np.array([[1, 1, 9, 9, 0.9, 0], [20, 20, 40, 47, 0.5, 1]], np.float32)
            write_boxes(folder / "boxes.csv", reader, boxes, tiny.CLASSES, {})
            if same:
                write_boxes(folder / "boxes.geojson", reader, boxes, tiny.CLASSES, {})
        return bool(same)

    return told(what, right)


_ABSURD = (1e30, -1e30, 1e25, -3e38, 1e13, -1e16)


@kind("scene: absurd values in floats")
def values_absurd(rng: np.random.Generator, folder: Path) -> Result:
    few = 1e-3 if rng.random() < 0.8 else 0.2
    physical = dn().astype(np.float32) * np.float32(1e-4) + np.float32(1e-4)
    dtype = str(rng.choice(["float32", "float64"]))
    hidden = rng.random((SIZE, SIZE)) < few
    value = float(rng.choice([*_ABSURD, float("nan"), float("inf"), -float("inf")]))
    values = physical.astype(dtype)
    values[int(rng.integers(4)), hidden] = value
    path = scene(folder / "s.tif", values)
    wanted = SPEC.to_dn(np.where(hidden, 0, values))
    nan_nodata = bool(rng.random() < 0.5)
    return told(f"{dtype}: {int(hidden.sum())} pixels of {value}", equal(path, wanted, hidden, nan_nodata=nan_nodata))


class _Listener:
    """A socket that anything may connect to, and whether something did."""

    def __init__(self) -> None:
        self.server = socket.socket()
        self.server.bind(("127.0.0.1", 0))
        self.server.listen(16)
        self.server.settimeout(0.02)
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}/x.tif"

    def came(self) -> bool:
        with contextlib.suppress(TimeoutError):
            self.server.accept()[0].close()
            return True
        return False


def _other_kinds(url: str, own: Path) -> dict[str, bytes]:
    source = "<SimpleSource><SourceFilename>{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    band = '<VRTRasterBand dataType="UInt16" band="{}"><Description>{}</Description>{}</VRTRasterBand>'
    vrt = f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}">{{}}</VRTDataset>'

    def of(name: str) -> bytes:
        return vrt.format("".join(band.format(i, n, source.format(name)) for i, n in enumerate(tiny.NAMES, 1))).encode()

    return {
        "vrt of a network": of(f"/vsicurl/{url}"),
        "vrt of a file": of(str(own)),
        "vrt of itself": of("s.tif"),
        "wms": f"<GDAL_WMS><Service name='WMS'><ServerUrl>{url}</ServerUrl></Service><DataWindow><SizeX>48</SizeX>"
        "<SizeY>48</SizeY></DataWindow></GDAL_WMS>".encode(),
        "wcs": f"<WCS_GDAL><ServiceURL>{url}?</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>".encode(),
        "stac": f'{{"type":"Feature","stac_version":"1.0.0","id":"x","assets":{{"a":{{"href":"{url}"}}}}}}'.encode(),
        "tile index": f"<GDALTileIndexDataset><IndexDataset>/vsicurl/{url}</IndexDataset></GDALTileIndexDataset>".encode(),
        "mrf": f"<MRF_META><CachedSource><Source>/vsicurl/{url}</Source></CachedSource><Raster><Size x='48' y='48'/></Raster>"
        "</MRF_META>".encode(),
        "ascii grid": b"ncols 2\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2\n3 4\n",
        "pgm": b"P5\n2 2\n255\nabcd",
        "xyz": b"0 0 1\n1 0 2\n0 1 3\n1 1 4\n",
        "url": f"[InternetShortcut]\nURL={url}\n".encode(),
    }


def _gridded_crs(length: int) -> str:
    """A system whose grid file has a name of so many letters, and is nowhere."""
    return (
        'GEOGCS["x",DATUM["x",SPHEROID["x",6378388,297],EXTENSION["PROJ4_GRIDS","' + "G" * length + '"]],'
        'PRIMEM["Greenwich",0],UNIT["Degree",0.0174532925199433]]'
    )


def gridded(path: Path, grid: str) -> Path:
    """The scene, its system's grid being another file; PROJ would open it already while the scene is written."""
    content = path.read_bytes()
    assert content.count(b"G" * len(grid))
    path.write_bytes(content.replace(b"G" * len(grid), grid.encode()))
    return path


@kind("scene: another kind of file by its name, nothing fetched, nothing else read")
def another_kind(rng: np.random.Generator, folder: Path) -> Result:
    listener, own = _Listener(), scene(folder / "own.tif")
    path = folder / str(rng.choice(["s.tif", "s.tiff", "s.TIF", "s.vrt", "s"]))
    ways = _other_kinds(listener.url, own)
    way = str(rng.choice([*ways, "overviews", "name", "grid"]))
    if way == "grid":
        pipe = folder / "pipe.gsb"
        os.mkfifo(pipe)
        path = gridded(scene(path, crs=_gridded_crs(len(str(pipe))), geotiff_keys_flavor="ESRI_PE"), str(pipe))
        result = told(f"{way} as {path.name}", lambda: bool(sound(path)()) and False)
    elif way == "overviews":
        path = scene(path)
        place = str(
            rng.choice([f"/vsicurl/{listener.url}", f"/vsizip//vsicurl/{listener.url}", str(own), ":::BASE:::x.ovr"])
        )
        with rasterio.open(path, "r+") as f:
            f.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=place)
        result = told(f"{way} {place}", equal(path, dn(), (dn() == 0).all(axis=0)))
    elif way == "name":
        prefixes = (
            "/vsicurl/{u}",
            "{u}",
            "GTIFF_DIR:1:{p}",
            "/vsigzip/{p}",
            "/vsisubfile/0,{p}",
            'NETCDF:"{p}":x',
            "vrt://{p}",
            "MEM:::DATAPOINTER=0",
            "WMS:{u}",
            "zip://{p}",
        )
        name = str(rng.choice(prefixes)).format(u=listener.url, p=own)
        result = told(f"name {name}", lambda: bool(sound(Path(name))()) and False)
    else:
        path.write_bytes(ways[way])
        result = told(f"{way} as {path.name}", lambda: bool(sound(path)()) and False)
    return Result("wrong", result.what, "a network was asked") if listener.came() else result


@kind("scene: files beside it")
def files_beside(rng: np.random.Generator, folder: Path) -> Result:
    listener, own = _Listener(), scene(folder / "own.tif", dn()[::-1].copy())
    path = scene(folder / "s.tif")
    other = _other_kinds(listener.url, own)
    contents = {
        "aux.xml": b"<PAMDataset><PAMRasterBand band='1'><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>",
        "aux.xml overviews": "<PAMDataset><Metadata domain='OVERVIEWS'>"
        f"<MDI key='OVERVIEW_FILE'>/vsicurl/{listener.url}</MDI></Metadata>"
        "</PAMDataset>".encode(),
        "tiff": own.read_bytes(), "garbage": rng.bytes(300), "empty": b"", **other,
    }  # fmt: skip
    way = str(rng.choice(list(contents)))
    suffix = (
        ".aux.xml"
        if way.startswith("aux")
        else str(rng.choice([".msk", ".ovr", ".aux.xml", ".tfw", ".aux", ".tab", ".rrd"]))
    )
    place = path.with_suffix(".tfw") if suffix == ".tfw" else path.with_name(path.name + suffix)
    if rng.random() < 0.1:
        os.mkfifo(place)
    else:
        place.write_bytes(contents[way])
    result = told(f"{place.name}: {way}", equal(path, dn(), (dn() == 0).all(axis=0)))
    return Result("wrong", result.what, "a network was asked") if listener.came() else result


@kind("scene: no plain file", seconds=10)
def no_plain_file(rng: np.random.Generator, folder: Path) -> Result:
    path = folder / "s.tif"
    way = str(
        rng.choice(
            [
                "folder",
                "pipe",
                "socket",
                "loop",
                "dangling",
                "zero",
                "random",
                "tty",
                "long",
                "nul",
                "surrogate",
                "empty",
                "mem",
                "stdin",
            ]
        )
    )
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif way in ("loop", "dangling"):
        path.symlink_to(path if way == "loop" else folder / "none")
    elif way == "empty":
        path.touch()
    else:
        path = {"zero": Path("/dev/zero"), "random": Path("/dev/urandom"), "tty": Path("/dev/tty"), "long": folder / ("n" * 300),
                "nul": Path("a\0b"),
                "surrogate": folder / "\udcff.tif", "mem": Path("/proc/self/mem"), "stdin": Path("/dev/stdin")}[way]  # fmt: skip
        if way == "surrogate":
            shutil.copy(scene(folder / "t.tif"), path)
    doors: dict[str, Callable[[], Any]] = {
        "scene": lambda: SceneReader(path, SPEC).close(),
        "labels": lambda: LabelReader(path, _grid(folder), tiny.CLASSES),
        "physical": lambda: read_physical(path),
        "describe": lambda: describe(path),
    }
    door = str(rng.choice(list(doors)))
    return told(f"{way} as {door}", lambda: doors[door]() is None or way == "surrogate")


def _grid(folder: Path) -> SceneReader:
    return SceneReader(scene(folder / "grid.tif"), SPEC)


_LABEL_TYPES = (
    "uint8",
    "int8",
    "int16",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
    "complex64",
    "complex_int16",
)


@kind("labels: types, nodata and values of every kind")
def labels_odd(rng: np.random.Generator, folder: Path) -> Result:
    dtype = str(rng.choice(_LABEL_TYPES))
    truth = rng.integers(0, 3, (1, SIZE, SIZE))
    odd = float(rng.choice([3, 255, -1, 0.5, 1e30, -1e30, float("nan"), float("inf"), 2**40]))
    plain = rng.random() < 0.4
    values = truth.astype("complex64" if "complex" in dtype else dtype)
    hidden = rng.random((1, SIZE, SIZE)) < (0 if plain else 0.01)
    with np.errstate(invalid="ignore"), contextlib.suppress(OverflowError):
        values[hidden] = np.asarray(odd).astype(values.dtype)
    nodata = (
        float(rng.choice([0, 1, 255, -9999, 1e30, float("nan"), float("inf"), -float("inf")]))
        if rng.random() < 0.5
        else None
    )
    path, what = folder / "l.tif", f"{dtype} {'plain' if plain else odd} nodata {nodata}"
    profile = {
        "driver": "GTiff",
        "height": SIZE,
        "width": SIZE,
        "count": 1,
        "crs": "EPSG:32632",
        "transform": from_origin(500000, 5400000, 10, 10),
    }
    try:
        with rasterio.open(path, "w", dtype=dtype, nodata=nodata, **profile) as f:
            f.write(values)
    except (rasterio.errors.RasterioError, ValueError, TypeError, OverflowError):
        return Result("harmless", f"GDAL does not write {what}")
    kept = values.astype(np.float64) if "complex" not in dtype else values.real.astype(np.float64)
    out = hidden[0] if not plain else np.zeros((SIZE, SIZE), bool)

    def right() -> bool:
        mapping = {0: 0, 1: 1, 2: 2} if rng.random() < 0.3 else None
        with _grid(folder) as grid, LabelReader(path, grid, tiny.CLASSES, mapping=mapping) as reader:
            found = reader.whole()
        known = ~out
        if nodata is not None and mapping is None:
            known &= kept[0] != nodata
        return bool((found[known] == truth[0][known]).all()) and bool((found[out] >= 0).all())

    return told(what, right)


@kind("labels: bytes of a GeoTIFF damaged")
def labels_damaged(rng: np.random.Generator, folder: Path) -> Result:
    bounded()
    path = tiny.write_scene(
        folder / "l.tif", rng.integers(0, 3, (1, SIZE, SIZE)).astype(np.uint8), None, compress="deflate"
    )
    content, way = damaged(path.read_bytes(), rng)
    path.write_bytes(content)

    def right() -> bool:
        with _grid(folder) as grid, LabelReader(path, grid, tiny.CLASSES) as reader:
            return reader.whole().shape == (SIZE, SIZE)

    return told(way, right)
