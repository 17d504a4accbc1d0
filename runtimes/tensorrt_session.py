"""Sessions over TensorRT engines built on this device (``rsedge build``)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import read_json, sha256_file
from rsedge.runtimes.cuda_driver import Cuda
from rsedge.runtimes.manifest import ENGINE_RECORD
from rsedge.runtimes.session import (
    INPUT,
    LOGITS,
    VALID,
    Array,
    Arrays,
    SessionBase,
    check_contract,
    outputs_of,
    parse_spec,
)
from rsedge.runtimes.tensorrt_build import fits
from rsedge.runtimes.tensorrt_engine import EngineRunner
from rsedge.runtimes.tensorrt_module import load_tensorrt


class TensorRtSession(SessionBase):
    """A deserialized engine with its buffers on one GPU (``CUDA`` or ``CUDA:1``).

    An engine with a batch range runs as many tiles of :meth:`stream` at once as it was built for; how they get through is
    :class:`~rsedge.runtimes.tensorrt_engine.EngineRunner`'s.
    """

    runtime = "tensorrt"

    def __init__(self, path: Path, spec: InputSpec | None, device: str = "CUDA", precision: str = "fp16") -> None:
        record = check_engine(path)
        trt = load_tensorrt(record["module"])
        self.runtime, self.runtime_version = record["module"], trt.__version__
        self._cuda = Cuda(_gpu_number(path, device))
        try:
            check_fits(path, record, trt.__version__, self._cuda)
            super().__init__(
                path, spec or parse_spec(json.dumps(record["input_spec"]), path), self._cuda.name, precision
            )
            self._load(trt, bool(record.get("version_compatible")), int(record.get("max_batch", 1)))
        except BaseException:
            self._cuda.close()
            raise

    def _load(self, trt: Any, version_compatible: bool, max_batch: int) -> None:
        rebuild = f"build it anew: rsedge build {self._path.parent}"
        content = (
            self._path.read_bytes()
        )  # the record's hash vouches for the code that version-compatible engines carry
        self._engine = EngineRunner(trt, self._cuda, content, str(self._path), rebuild, max_batch, version_compatible)
        check_contract(self._path, self._engine.inputs, self._engine.outputs)
        dn = self._engine.host[INPUT]
        self._graph_input((1, *dn.shape[1:]), dn.dtype)

    @property
    def execution(self) -> str:
        """How tiles get through, e.g. ``shared memory, CUDA graph``; the reason where no graph could be captured."""
        return self._engine.execution

    def _run(self, dn: Array) -> Arrays:
        return self._run_batch([dn])[0]

    def stream(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[Arrays]:
        """Runs as many tiles at once as the engine takes; results in order."""
        source = iter(inputs)
        while group := [self.prepare(one) for one in itertools.islice(source, self._engine.batch)]:
            yield from self._run_batch(group)

    def _run_batch(self, tiles: Sequence[Array]) -> list[Arrays]:
        count = self._engine.run({INPUT: [dn[0] for dn in tiles]})
        logits, valid = self._engine.host[LOGITS], self._engine.host[VALID]
        return [outputs_of(logits[i : i + 1].copy(), valid[i : i + 1].copy()) for i in range(count)]

    def close(self) -> None:
        super().close()
        self._engine.close()
        self._cuda.close()


def check_engine(path: Path) -> dict[str, Any]:
    """The record beside an engine, after holding the engine against it.

    Raises:
        MissingCapability: no record, so nobody knows what the engine fits. IntegrityError: the engine was altered.
    """
    place = path.with_name(ENGINE_RECORD)
    rebuild = f"build it anew: rsedge build {path.parent}"
    if not place.is_file():
        raise MissingCapability(f"{path}: {ENGINE_RECORD} is missing beside it, so it may not fit this GPU; {rebuild}")
    record = read_json(place)
    needed = ("module", "version", "gpu", "sm", "onnx_sha256", "engine_sha256", "input_spec")
    if not isinstance(record, dict) or any(k not in record for k in needed):
        raise RequestError(f"{place}: not the record of an engine; {rebuild}")
    if record["module"] not in ("tensorrt", "tensorrt_rtx"):
        raise RequestError(f"{place}: unknown module '{record['module']}'; {rebuild}")
    if sha256_file(path) != record["engine_sha256"]:
        raise IntegrityError(f"{path}: truncated or altered (SHA-256 differs from {ENGINE_RECORD}); {rebuild}")
    return record


def check_fits(path: Path, record: dict[str, Any], version: str, gpu: Cuda) -> None:
    """Refuses an engine built by another TensorRT version or for another GPU.

    Raises:
        MissingCapability: names both sides and the command that builds a fitting one.
    """
    here, there = f"{version} on {gpu.name} ({gpu.sm})", f"{record['version']} on {record['gpu']} ({record['sm']})"
    if not fits(record, version, gpu.sm):
        raise MissingCapability(
            f"{path}: was built by TensorRT {there}, this machine has {here}; engines do not carry over, build it "
            f"anew: rsedge build {path.parent}"
        )


def _gpu_number(path: Path, device: str) -> int:
    name, colon, number = device.partition(":")
    if name.upper() != "CUDA" or bool(colon) != number.isdigit():
        raise RequestError(f"{path}: '{device}' is no GPU of TensorRT's; write CUDA or CUDA:0")
    return int(number or 0)
