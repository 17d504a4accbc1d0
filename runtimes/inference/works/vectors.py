"""One vector per input: of samples, or of a scene's chips side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.runtimes.inference.vectors import infer_chips, read_samples, run_samples, write_samples
from rsedge.runtimes.inference.works.arrays import Array, batch_of
from rsedge.runtimes.inference.works.base import Call, Inference, open_scene, provenance


class SampleInference(Inference):
    """Vectors (K,) of samples from an ``.npz``, or of an array; written as ``.npz`` or a table."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        manifest = call.bundle.manifest
        dn = read_samples(source, manifest.input_spec)
        session = call.session()
        began = time.perf_counter()
        found = run_samples(session, dn, call.progress)
        seconds = time.perf_counter() - began
        write_samples(output, manifest.task, found, manifest.classes)
        return {"output": str(output), "samples": len(dn), "outputs": found.shape[1], "seconds": round(seconds, 3),
                "target": manifest.target.name, "device": session.device, "runtime": session.runtime,
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
        )


class ChipInference(SampleInference):
    """As of samples, of chips cut from a scene; written as a GeoTIFF with a pixel per chip."""

    def write(self, call: Call, source: Path, output: Path) -> dict[str, Any]:
        manifest = call.bundle.manifest
        with open_scene(call, source) as reader:
            session = call.session()
            found = infer_chips(session, reader, output, manifest.task, manifest.classes, call.progress)
            return {**found, **provenance(call.bundle, session, reader)}

    def read(self, call: Call, source: Path) -> Any:
        raise RequestError(f"{source}: a scene of chips is written as a GeoTIFF; give output, or the chips as an array")

    def text(self, record: dict[str, Any]) -> str:
        found = ", ".join(f"{n} {c}" for n, c in record["pixels"].items() if c)
        size = f"{record['width']}x{record['height']} chips"
        return (
            f"{record['output']}: {size}, {record['nodata_pixels']} nodata; {found}\n"
            f"{record['seconds']:.1f} s on {record['device']} ({record['target']})"
        )
