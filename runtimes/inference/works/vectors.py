"""One vector per input: of samples, or of a scene's chips side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.head import Head, beside, check_vectors
from rsedge.runtimes.inference.scene_run import SceneRun, text_of
from rsedge.runtimes.inference.style import Style
from rsedge.runtimes.inference.vectors import (
    check_chips,
    check_samples,
    chip_vectors,
    read_samples,
    run_samples,
    write_chips,
    write_samples,
)
from rsedge.runtimes.inference.works.arrays import Array, batch_of
from rsedge.runtimes.inference.works.base import Call, Inference, Reader, open_scene, provenance


def _of_samples(head: Head, vectors: Array, output: Path) -> dict[str, Any]:
    check_vectors(head, vectors)
    place = beside(output, head)
    write_samples(place, head.record.task, head(vectors), head.record.classes)
    return {"output": str(place), **head.about()}


def _of_chips(head: Head, grid: Array, output: Path, reader: Reader, tile: int, style: Style) -> dict[str, Any]:
    vectors = np.moveaxis(grid, 0, -1).reshape(-1, len(grid))
    check_vectors(head, vectors)
    place, found = beside(output, head), np.moveaxis(head(vectors).reshape(*grid.shape[1:], -1), -1, 0)
    pixels = write_chips(place, reader, head.record.task, found, head.record.classes, tile, style)
    return {"output": str(place), "pixels": pixels, **head.about()}


def _heads_text(record: dict[str, Any]) -> str:
    rows = (
        f"\n{name} (head, signature: {found['signature']}): {found['output']}"
        + "".join(f", {n} {c}" for n, c in found.get("pixels", {}).items() if c)
        for name, found in record.get("heads", {}).items()
    )
    return "".join(rows)


class SampleInference(Inference):
    """Vectors (K,) of samples from an ``.npz``, or of an array; written as ``.npz`` or a table."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        manifest = call.bundle.manifest
        check_samples(output)
        dn = read_samples(source, manifest.input_spec)
        session = call.session()
        began = time.perf_counter()
        found = run_samples(session, dn, call.progress)
        seconds = time.perf_counter() - began
        write_samples(output, manifest.task, found, manifest.classes)
        heads = {head.record.name: _of_samples(head, found, output) for head in call.options.heads}
        return {"output": str(output), **({"heads": heads} if heads else {}), "samples": len(dn), "outputs": found.shape[1],
                "seconds": round(seconds, 3), "target": manifest.target.name, "device": session.device, "runtime": session.runtime,
                "self_test": session.record(), **call.bundle.signature.record()}  # fmt: skip

    def read(self, call: Call, source: Path) -> Any:
        dn = read_samples(source, call.bundle.manifest.input_spec)
        return run_samples(call.session(), dn, call.progress)

    def array(self, call: Call, values: Array) -> Any:
        batch, one = batch_of(values, call.bundle.manifest.input_spec, any_size=False)
        found = run_samples(call.session(), batch, call.progress)
        return found[0] if one else found

    def text(self, record: dict[str, Any]) -> str:
        rate = record["samples"] / max(record["seconds"], 1e-9)
        return (
            f"{record['output']}: {record['samples']} samples, {record['outputs']} outputs each\n"
            f"{record['seconds']:.1f} s, {rate:.0f} samples/s on {record['device']} ({record['target']})"
            f"{_heads_text(record)}"
        )


class ChipInference(SampleInference):
    """As of samples, of chips cut from a scene; written as a GeoTIFF with a pixel per chip."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        manifest = call.bundle.manifest
        with open_scene(call, source) as reader:
            check_chips(output, reader)
            began, session, run = time.perf_counter(), call.session(), SceneRun()
            grid = chip_vectors(session, reader, call.progress, run)
            tile, style = manifest.input_spec.tile, call.style
            pixels = write_chips(output, reader, manifest.task, grid, manifest.classes, tile, style)
            heads = {
                head.record.name: _of_chips(head, grid, output, reader, tile, style) for head in call.options.heads
            }
            found = {"output": str(output), "height": grid.shape[1], "width": grid.shape[2], "pixels": pixels,
                     "nodata_pixels": int((~np.isfinite(grid[0])).sum()), **({"heads": heads} if heads else {}),
                     "seconds": round(time.perf_counter() - began, 3), "run": run.record(session.device)}  # fmt: skip
            return {**found, **provenance(call.bundle, session, reader)}

    def read(self, call: Call, source: Path) -> Any:
        raise RequestError(f"{source}: a scene of chips is written as a GeoTIFF; give output, or the chips as an array")

    def text(self, record: dict[str, Any]) -> str:
        found = ", ".join(f"{n} {c}" for n, c in record["pixels"].items() if c)
        size = f"{record['width']}x{record['height']} chips"
        return (
            f"{record['output']}: {size}, {record['nodata_pixels']} nodata; {found}\n"
            f"{record['seconds']:.1f} s on {record['device']} ({record['target']})\n{text_of(record['run'])}"
            f"{_heads_text(record)}"
        )
