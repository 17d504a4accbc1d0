"""Opens a model file with the runtime that is asked for, or with what stands in for it on this machine."""

from __future__ import annotations

from pathlib import Path

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.runtimes.backend import Opening, StandIn
from rsedge.runtimes.checked import Model
from rsedge.runtimes.precision import precision as precision_of
from rsedge.runtimes.registry import backend, backend_for
from rsedge.runtimes.session import Hint, Session


def open_session(
    model: str | Model,
    runtime: str,
    *,
    input_spec: InputSpec | None = None,
    device: str = "CPU",
    precision: str | None = None,
    threads: int | None = None,
    hint: Hint = "latency",
    as_written: bool = False,
) -> Session:
    """Loads a model file.

    Args:
        model: in a format that the runtime opens (``.xml``, ``.onnx``): a file, or bytes that were checked. What is built
            on a device is opened by :meth:`rsedge.runtimes.Bundle.session` alone.
        runtime: one of :func:`rsedge.runtimes.registry.runtime_names`.
        input_spec: the band contract; None reads it from the model file.
        device: the runtime's own name, e.g. ``CPU``, ``GPU``, ``NPU``, ``CUDA``, ``XNNPACK``; a GPU number follows a dot.
        precision: one of :data:`rsedge.runtimes.precision.PRECISIONS`; None means ``f32``.
        threads: CPU threads; None means all cores this process may use.
        hint: what OpenVINO tunes for: one tile at a time, or many in flight through ``stream``.
        as_written: ONNX Runtime computes every node as the file has it, nothing fused: where it stands in for a runtime that
            is not here (TensorRT, the Myriad), its own rewriting must not be part of the answer.

    Raises:
        RequestError: no such file, not a model, or a model without the ``dn`` -> ``logits``, ``valid`` contract.
        MissingCapability: the runtime or the device is not on this machine.
    """
    path = _checked(model)
    found = backend_for(runtime, device)
    wanted = precision_of(precision or "f32").name
    return found.session(path, Opening(input_spec, device, wanted, threads, hint, as_written))


def open_stand_in(
    model: str | Model, stand_in: StandIn, input_spec: InputSpec | None = None, threads: int | None = None
) -> Session:
    """Opens a target's model with what gives its numbers here
    (:meth:`~rsedge.runtimes.backend.RuntimeBackend.here`, :meth:`~rsedge.runtimes.backend.RuntimeBackend.golden`).

    Raises:
        RequestError, MissingCapability: as :func:`open_session`.
    """
    how = Opening(input_spec, stand_in.device, stand_in.precision, threads, as_written=stand_in.as_written)
    return backend(stand_in.backend).session(_checked(model), how)


def _checked(model: str | Model) -> Model:
    path = Path(model) if isinstance(model, str) else model
    if isinstance(path, Path) and not path.is_file():
        raise RequestError(f"{path}: no such model file")
    return path
