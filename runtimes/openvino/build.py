"""``rsedge build`` for OpenVINO bundles: the model compiled once, so that the device starts in a moment."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle.reading import Bundle, runtime_device
from rsedge.runtimes.device_cache import Slot, store
from rsedge.runtimes.openvino.blob import BlobRecord
from rsedge.runtimes.openvino.core import check_device, settings, shared_core
from rsedge.runtimes.openvino.session import compile_blob, device_name, load_openvino
from rsedge.runtimes.session import Hint


def build_blob(bundle: Bundle, hint: Hint = "latency") -> Path:
    """Compiles an OpenVINO bundle for this machine's device; kept in the device's cache, whose file is returned.

    Args:
        hint: fixed in the blob.

    Raises:
        RequestError: no OpenVINO bundle, or a model that the device cannot compile.
        MissingCapability: the device is not here.
    """
    target = bundle.manifest.target
    device = runtime_device(target.runtime, target.device)
    if target.runtime != "openvino" or device == "MYRIAD":
        how = "OpenVINO 2022.3 compiles it at each start" if device == "MYRIAD" else "it is ready to run"
        raise RequestError(f"{bundle.path}: is for {target.name}; {how}")
    ov, core = load_openvino(bundle.path), shared_core()
    check_device(core, bundle.path, device, target.precision)
    options: dict[str, Any] = settings(device, target.precision, None, hint)
    bundle.rehearse(hint=hint)
    content = compile_blob(bundle.model(), device, options)
    name = device_name(core, device)
    record = BlobRecord(
        openvino=ov.get_version(),
        device=device,
        device_name=name,
        precision=target.precision,
        hint=hint,
        built=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    return store(Slot("blob", bundle.manifest_sha256, name, bundle.path), content, record.model_dump())
