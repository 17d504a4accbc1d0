"""``rsedge build`` for OpenVINO bundles: the model compiled once, so that the device starts in a moment."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from rsedge.runtimes.backend import BundleView
from rsedge.runtimes.device_cache import Slot, store
from rsedge.runtimes.openvino.blob import BlobRecord
from rsedge.runtimes.openvino.core import check_device, settings, shared_core
from rsedge.runtimes.openvino.session import compile_blob, device_name, load_openvino
from rsedge.runtimes.session import Hint


def build_blob(bundle: BundleView, device: str, hint: Hint = "latency") -> Path:
    """Compiles an OpenVINO bundle for this machine's device; kept in the device's cache, whose file is returned.

    Args:
        device: OpenVINO's name of it.
        hint: fixed in the blob.

    Raises:
        RequestError: a model that the device cannot compile.
        MissingCapability: the device is not here.
    """
    target = bundle.target
    ov, core = load_openvino(bundle.path), shared_core()
    check_device(core, bundle.path, device, target.precision)
    options: dict[str, Any] = settings(device, target.precision, None, hint)
    bundle.rehearse(hint=hint)
    content, added = compile_blob(bundle.model(), device, target.precision, options)
    name = device_name(core, device)
    record = BlobRecord(
        openvino=ov.get_version(),
        device=device,
        device_name=name,
        precision=target.precision,
        hint=hint,
        options=added,
        built=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    return store(Slot("blob", bundle.manifest_sha256, name, bundle.path), content, record.model_dump())
