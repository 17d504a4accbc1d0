"""``rsedge build`` for OpenVINO bundles: the model compiled once, so that the device starts in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.data.errors import RequestError
from rsedge.runtimes.bundle import Bundle, runtime_device
from rsedge.runtimes.openvino_blob import offline_settings, write_blob
from rsedge.runtimes.openvino_core import check_device, settings, shared_core
from rsedge.runtimes.openvino_session import compile_blob, device_name, load_openvino
from rsedge.runtimes.session import Hint


def build_blob(bundle: Bundle, platform: str | None = None, hint: Hint = "latency") -> Path:
    """Compiles an OpenVINO bundle for its device and writes ``model.blob`` and ``blob.json`` into its folder.

    Args:
        platform: an NPU generation (``3720``, ``4000``, ``5010``) to compile for without having it.
        hint: fixed in the blob.

    Raises:
        RequestError: a zip, a platform for another device than an NPU, or a model that the device cannot compile.
        MissingCapability: the device, or for another NPU the compiler's library, is not here.
    """
    target = bundle.manifest.target
    if target.runtime != "openvino" or runtime_device(target.runtime, target.device) == "MYRIAD":
        how = "its build.sh makes the blob" if target.runtime == "openvino" else "it is ready to run"
        raise RequestError(f"{bundle.path}: is for {target.name}; {how}")
    if bundle.path != bundle.folder:
        raise RequestError(f"{bundle.path}: unzip the bundle first, the blob is written into its folder")
    device = runtime_device(target.runtime, target.device)
    if platform is not None and device != "NPU":
        raise RequestError(f"{bundle.path}: a platform is chosen for NPU bundles, this one is for {target.name}")
    ov = load_openvino(bundle.folder)
    options: dict[str, Any] = settings(device, target.precision, None, hint)
    name = None
    if platform is not None:
        options |= offline_settings(platform, Path(ov.__file__).parent / "libs")
    else:
        core = shared_core()
        check_device(core, bundle.path, device, target.precision)
        name = device_name(core, device)
    model = bundle.folder / bundle.manifest.model_file
    record = {
        "openvino": ov.get_version(),
        "device": device,
        "device_name": name,
        "platform": platform,
        "precision": target.precision,
        "hint": hint,
        "model_sha256": bundle.manifest.files[bundle.manifest.model_file].sha256,
        "input_spec": bundle.manifest.input_spec.model_dump_json(),
    }
    return write_blob(bundle.folder, compile_blob(model, device, options), record)
