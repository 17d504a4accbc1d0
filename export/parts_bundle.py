"""Writing a bundle of several parts: a file for each, a golden sample from their executables together, hashed and signed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.export.bundle import GOLDEN, README, About, appearing, copy_model, entries, write_manifest
from rsedge.runtimes.backend import Opening
from rsedge.runtimes.bundle.manifest import Golden, PartsRecord, Target, TensorRecord
from rsedge.runtimes.bundle.whole import write_golden
from rsedge.runtimes.parts import PartSession
from rsedge.runtimes.registry import backend
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.table import WHOLES, whole_of


def write_parts_bundle(
    folder: str | Path,
    about: About,
    *,
    target: Target,
    whole: str,
    settings: Mapping[str, Any],
    input_spec: InputSpec,
    part_files: Mapping[str, Sequence[Path]],
    golden: Mapping[str, Array],
    threads: int | None = None,
    signing_key: Ed25519PrivateKey | None = None,
) -> Path:
    """Writes a bundle folder; it appears whole or not at all, and an older one there is replaced.

    Args:
        whole, settings: what runs between the parts (:mod:`rsedge.runtimes.wholes.table`).
        part_files: part -> its files, the one that the runtime opens first, in the order in which parts run.
        golden: one sample of the whole, best a real one.

    Raises:
        RequestError: contents that do not fit together. MissingCapability: the target cannot run here, or the disk is full.
    """
    folder = Path(folder)
    with appearing(folder) as made:
        files = {name: _copied(made, name, paths) for name, paths in part_files.items()}
        outputs = _run(target, whole, settings, {name: made / file for name, file in files.items()}, golden, threads)
        inputs = {n: TensorRecord(shape=v.shape, dtype=str(v.dtype)) for n, v in golden.items()}
        write_golden(made / GOLDEN, golden, outputs)
        limits = _limits(target, outputs)
        (made / README).write_text(_readme(about, target, whole, files, inputs), encoding="utf-8")
        record = PartsRecord(whole=whole, settings=dict(settings), files=files, inputs=inputs, limits=limits)
        manifest = about.manifest(
            folder, target=target, input_spec=input_spec, model_file=next(iter(files.values())), parts=record,
            golden=Golden(file=GOLDEN, atol=max(limits.values()), agreement_min=1.0), files=entries(made),
        )  # fmt: skip
        write_manifest(made, manifest, signing_key)
    return folder


def open_here(target: Target, path: Path, threads: int | None = None) -> PartSession:
    """A part's file by what gives a target's numbers on this machine.

    Raises:
        RequestError: no model. MissingCapability: the target's runtime runs no parts, or is not here.
    """
    stand_in = target.backend.here(target.device, target.precision)
    how = Opening(None, stand_in.device, stand_in.precision, threads, as_written=stand_in.as_written)
    return backend(stand_in.backend).open_part(path, how)


def _copied(made: Path, name: str, paths: Sequence[Path]) -> str:
    for path in paths:
        copy_model(path, made / f"{name}{path.suffix}")
    return f"{name}{paths[0].suffix}"


def _run(
    target: Target,
    whole: str,
    settings: Mapping[str, Any],
    files: Mapping[str, Path],
    sample: Mapping[str, Array],
    threads: int | None,
) -> Arrays:
    with contextlib.ExitStack() as stack:
        sessions = {name: stack.enter_context(open_here(target, path, threads)) for name, path in files.items()}
        found = whole_of(whole, list(files), settings).run(sessions, sample)
    if odd := [name for name, value in found.items() if not np.isfinite(value).all()]:
        raise RequestError(f"{target.name}: the golden sample's '{odd[0]}' is not finite")
    return found


def _limits(target: Target, outputs: Arrays) -> dict[str, float]:
    """How far each output may lie off: a share of its largest value, as of any network of that precision."""
    share, _ = target.backend.tolerance(target.precision)
    return {name: share * max(float(np.abs(value).max()), 1e-6) for name, value in outputs.items()}


def _readme(
    about: About, target: Target, whole: str, files: Mapping[str, str], inputs: Mapping[str, TensorRecord]
) -> str:
    arrays = "\n".join(f"  {name}: {tensor.text}" for name, tensor in inputs.items())
    parts = "\n".join(f"  {i}. {name}: {file}" for i, (name, file) in enumerate(files.items(), 1))
    origin = f"\nMade from: {about.teacher}" if about.teacher else ""
    return f"""{about.name}: {whole} for {target.name} ({WHOLES[whole].about}){origin}

Is it whole, from us, and does it give the right numbers on this device?
  rsedge verify . --key PUBLIC_KEY.pem
(take the public key from us, not from this folder: signing.pub here is for convenience and proves nothing)

Use it:
  rsedge infer . samples.npz --output answers.npz
of N samples, these arrays:
{arrays}

Parts, in the order in which they run:
{parts}
"""
