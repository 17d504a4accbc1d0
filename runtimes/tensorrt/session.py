"""Sessions over TensorRT engines built on this device (``rsedge build``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.runtimes.device_cache import Built
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Arrays, SessionBase, check_contract, outputs_of
from rsedge.runtimes.tensorrt.cuda_driver import Cuda
from rsedge.runtimes.tensorrt.engine import EngineRunner, layer_rows
from rsedge.runtimes.tensorrt.module import load_tensorrt
from rsedge.runtimes.tensorrt.record import EngineRecord, check_fits, engine_record, hardware_name

FindEngine = Callable[[str], Built]
"""Gives the engine that was built here for a GPU (:func:`rsedge.runtimes.tensorrt.record.hardware_name`)."""


class TensorRtSession(SessionBase):
    """A deserialized engine with its buffers on one GPU (``CUDA`` or ``CUDA:1``).

    An engine with a batch range runs as many tiles of :meth:`stream` at once as it was built for; how they get through is
    :class:`~rsedge.runtimes.tensorrt.engine.EngineRunner`'s.

    Args:
        path: the bundle, for messages.
    """

    runtime = "tensorrt"

    def __init__(
        self, path: Path, find: FindEngine, spec: InputSpec, device: str = "CUDA", precision: str = "fp16"
    ) -> None:
        self._cuda = Cuda(_gpu_number(path, device))
        try:
            built = find(hardware_name(self._cuda.name, self._cuda.sm))
            record = engine_record(built)
            trt = load_tensorrt(record.module)
            self.runtime, self.runtime_version = record.module, trt.__version__
            check_fits(built, record, trt.__version__, self._cuda.name, self._cuda.sm)
            super().__init__(path, spec, self._cuda.name, precision)
            self._engine = _runner(trt, self._cuda, built, record)
            check_contract(self._path, self._engine.inputs, self._engine.outputs)
            dn = self._engine.host[INPUT]
            self._graph_input((1, *dn.shape[1:]), dn.dtype)
        except BaseException:
            self._cuda.close()
            raise

    @property
    def execution(self) -> str:
        """How tiles get through, e.g. ``shared memory, CUDA graph``; the reason where no graph could be captured."""
        return self._engine.execution

    def layers(self, inputs: Mapping[str, Array], runs: int) -> list[dict[str, Any]]:
        """Mean milliseconds of each layer over ``runs`` runs of one input: ``name``, ``type``, ``kernel``, ``ms``."""
        return layer_rows(self._engine.profile({INPUT: [self.prepare(inputs)[0]]}, runs))

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


def _runner(trt: Any, cuda: Cuda, built: Built, record: EngineRecord) -> EngineRunner:
    """The device's own signature vouches for the code that version-compatible engines carry."""
    return EngineRunner(
        trt,
        cuda,
        built.content,
        str(built),
        built.rebuild,
        record.max_batch,
        version_compatible=record.version_compatible,
    )


def _gpu_number(path: Path, device: str) -> int:
    name, colon, number = device.partition(":")
    if name.upper() != "CUDA" or bool(colon) != number.isdigit():
        raise RequestError(f"{path}: '{device}' is no GPU of TensorRT's; write CUDA or CUDA:0")
    return int(number or 0)
