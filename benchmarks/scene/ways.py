"""Ways of mapping one scene by one model, each run in a process of its own: `ways.py WAY BUNDLE SCENE OUTPUT` prints what it took.

What is timed begins with the model open and ends with the map written: a person's plain loop, torchgeo's sampler, the package
`tiler`, and rsedge, all through the same session. `bound` times what none can do without, each alone: unpacking the scene,
running its tiles from memory, packing the map.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.windows import Window

import rsedge
from rsedge.runtimes.cores import cpu_count
from rsedge.runtimes.inference.tiles import default_overlap, tile_starts
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Session

Bytes = npt.NDArray[np.uint8]
_RING = 32


def _rsedge(bundle: rsedge.Bundle, session: Session, scene: Path, output: Path) -> dict[str, Any]:
    record = bundle.predict(scene, output, warn=lambda text: None)
    return {"run": record["run"]}


def _plain_loop(bundle: rsedge.Bundle, session: Session, scene: Path, output: Path) -> dict[str, Any]:
    tile = bundle.spec.tile
    with rasterio.open(scene) as file:
        found = np.full((file.height, file.width), 255, np.uint8)
        for row, col in _corners(file.height, file.width, tile):
            outputs = session({INPUT: file.read(window=Window(col, row, tile, tile))[None]})
            found[row : row + tile, col : col + tile] = _classes(outputs)
        _write(output, found, file.profile)
    return {}


def _torchgeo(bundle: rsedge.Bundle, session: Session, scene: Path, output: Path) -> dict[str, Any]:
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import GridGeoSampler

    tile = bundle.spec.tile
    data = RasterDataset(paths=[str(scene)])
    sampler = GridGeoSampler(data, size=tile, stride=tile - default_overlap(tile))
    with rasterio.open(scene) as file:
        found, place, profile = np.full((file.height, file.width), 255, np.uint8), ~file.transform, file.profile
    for query in sampler:
        dn = data[query]["image"].numpy().astype(np.uint16)[:, :tile, :tile]
        col, row = (round(v) for v in place @ (query[0].start, query[1].stop))
        here = found[max(row, 0) : row + tile, max(col, 0) : col + tile]
        classes = _classes(session({INPUT: np.ascontiguousarray(dn[None])}))
        here[:] = classes[: here.shape[0], : here.shape[1]]
    _write(output, found, profile)
    return {}


def _tiler(bundle: rsedge.Bundle, session: Session, scene: Path, output: Path) -> dict[str, Any]:
    from tiler import Merger, Tiler

    tile, overlap = bundle.spec.tile, default_overlap(bundle.spec.tile)
    with rasterio.open(scene) as file:
        dn, profile = file.read(), file.profile
    cut: dict[str, Any] = {"overlap": (0, overlap, overlap), "channel_dimension": 0, "mode": "reflect"}
    tiles = Tiler(dn.shape, (len(dn), tile, tile), **cut)
    shape = (len(bundle.classes), *dn.shape[1:])
    merged = Merger(Tiler(shape, (shape[0], tile, tile), **cut), window="hann")
    for number, one in tiles(dn):
        logits = session({INPUT: np.ascontiguousarray(one[None])})[LOGITS][0]
        shares = np.exp(logits - logits.max(0))
        merged.add(number, shares / shares.sum(0))
    found = merged.merge().argmax(0).astype(np.uint8)
    found[(dn == 0).all(0)] = 255
    _write(output, found, profile)
    return {}


def _bound(bundle: rsedge.Bundle, session: Session, scene: Path, output: Path) -> dict[str, Any]:
    """Processor seconds; ``output`` is a map that is there."""
    tile = bundle.spec.tile
    with rasterio.open(scene) as file:
        corners, step = list(_corners(file.height, file.width, tile)), file.block_shapes[0][0]
        ring = [file.read(window=Window(c, r, tile, tile))[None] for r, c in corners[:: len(corners) // _RING + 1]]

        def decode() -> None:
            with rasterio.open(scene) as fresh:  # of the other some blocks are unpacked already
                for row in range(0, file.height, step):
                    fresh.read(window=Window(0, row, file.width, min(step, file.height - row)))

        def tiles() -> Iterator[dict[str, Any]]:
            for number in range(len(corners)):
                yield {INPUT: ring[number % len(ring)]}

        def infer() -> None:
            for _ in session.stream(tiles()):
                pass

        with rasterio.open(output) as made:
            found, profile = made.read(1), file.profile
        encode = output.with_name("encoded.tif")
        alone = {"decode_s": _processor(decode), "infer_s": _processor(infer),
                 "encode_s": _processor(lambda: _write(encode, found, profile))}  # fmt: skip
    encode.unlink()
    return {**alone, "tiles": len(corners)}


WAYS: dict[str, Callable[[rsedge.Bundle, Session, Path, Path], dict[str, Any]]] = {
    "rsedge": _rsedge, "plain loop": _plain_loop, "torchgeo GridGeoSampler": _torchgeo, "tiler": _tiler, "bound": _bound,
}  # fmt: skip


def _corners(height: int, width: int, tile: int) -> Iterator[tuple[int, int]]:
    for row in tile_starts(height, tile, default_overlap(tile)):
        for col in tile_starts(width, tile, default_overlap(tile)):
            yield row, col


def _classes(outputs: dict[str, Any]) -> Bytes:
    found: Bytes = outputs[LOGITS][0].argmax(0).astype(np.uint8)
    found[outputs[VALID][0] == 0] = 255
    return found


def _write(output: Path, found: Bytes, profile: Any) -> None:
    form = {"count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate", "predictor": 1, "tiled": True, "blockxsize": 256,
            "blockysize": 256, "num_threads": cpu_count()}  # fmt: skip
    with rasterio.open(output, "w", **{**profile, **form}) as file:
        file.write(found, 1)


def _processor(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    way, bundle, scene, output = sys.argv[1], *map(Path, sys.argv[2:])
    warnings.simplefilter("ignore")
    with rsedge.load(bundle, hint="throughput") as opened:
        session = opened.opened.session(cpu_count(), None, "throughput")  # the model as it is, without self-test
        dn = np.ones((opened.spec.channels, opened.spec.tile, opened.spec.tile), opened.spec.dtype)
        opened.predict(dn)
        session({INPUT: dn[None]})
        if way == "torchgeo GridGeoSampler":
            import torchgeo.samplers  # noqa: F401 - importing is not timed
        wall, processor = time.perf_counter(), time.process_time()
        found = WAYS[way](opened, session, scene, output)
        took = {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, **took, "peak_mb": peak, "cores": cpu_count()}))


if __name__ == "__main__":
    main()
