"""Compiled OpenVINO models (``model.blob``): pinned to what made them, refused where they do not fit.

A blob fits one OpenVINO version and one device. For the NPU one can be made on a machine without an NPU where the compiler's
library is found: it is in OpenVINO's archives and in the NPU driver, not in the Linux wheel (openvino issue 36374).
"""

from __future__ import annotations

import ctypes.util
import datetime
import os
from pathlib import Path
from typing import Any

from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import read_json, sha256_file, write_bytes, write_json
from rsedge.runtimes.manifest import BLOB, BLOB_RECORD

NPU_COMPILERS = ("openvino_intel_npu_compiler", "npu_driver_compiler")
NPU_PLATFORMS = ("3720", "4000", "5010")
"""Meteor/Arrow Lake, Lunar Lake, Panther Lake."""
_FIELDS = ("openvino", "device", "device_name", "model_sha256", "blob_sha256", "input_spec")


def write_blob(folder: Path, content: bytes, record: dict[str, Any]) -> Path:
    """Writes ``model.blob`` and its record ``blob.json``; the record is removed first and written last."""
    target, sidecar = folder / BLOB, folder / BLOB_RECORD
    sidecar.unlink(missing_ok=True)
    write_bytes(target, content)
    built = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    write_json(sidecar, {**record, "blob_sha256": sha256_file(target), "built": built})
    return target


def check_blob(path: Path, version: str, device: str, device_name: str) -> dict[str, Any]:
    """The record beside a blob, after holding blob and machine against it.

    Raises:
        MissingCapability: no record, or made by another OpenVINO or for another device; names both sides.
        IntegrityError: the blob was altered.
    """
    place = path.with_name(BLOB_RECORD)
    rebuild = f"build it anew: rsedge build {path.parent}"
    if not place.is_file():
        raise MissingCapability(f"{path}: {BLOB_RECORD} is missing beside it, so it may not fit this device; {rebuild}")
    record = read_json(place)
    if not isinstance(record, dict) or any(k not in record for k in _FIELDS):
        raise RequestError(f"{place}: not the record of a blob; {rebuild}")
    if sha256_file(path) != record["blob_sha256"]:
        raise IntegrityError(f"{path}: truncated or altered (SHA-256 differs from {BLOB_RECORD}); {rebuild}")
    here = (version, device, device_name)
    there = (record["openvino"], record["device"], record["device_name"] or device_name)
    if here != there:
        raise MissingCapability(
            f"{path}: was compiled by OpenVINO {there[0]} for {there[1]} ({there[2]}), this machine has {here[0]} and "
            f"{here[1]} ({here[2]}); blobs do not carry over, {rebuild}"
        )
    return record


def npu_compiler(libraries: Path) -> str | None:
    """The NPU compiler's library: beside OpenVINO's plugins in ``libraries``, on LD_LIBRARY_PATH or known to the linker."""
    folders = [libraries, *(Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p)]
    for name in NPU_COMPILERS:
        for folder in folders:
            if found := next(iter(sorted(folder.glob(f"*{name}*"))), None):
                return str(found)
        if known := ctypes.util.find_library(name):
            return known
    return None


def offline_settings(platform: str, libraries: Path) -> dict[str, str]:
    """Properties that make the NPU plugin compile for ``platform`` on a machine without an NPU.

    Raises:
        RequestError: no such platform. MissingCapability: no compiler library; says where there is one.
    """
    if platform not in NPU_PLATFORMS:
        raise RequestError(f"NPU platform '{platform}' is unknown; choose {', '.join(NPU_PLATFORMS)}")
    if npu_compiler(libraries) is None:
        raise MissingCapability(
            "the NPU compiler's library is not on this machine (looked for "
            f"{' and '.join(f'lib{n}*.so' for n in NPU_COMPILERS)} in {libraries}, on LD_LIBRARY_PATH and with the linker). "
            "OpenVINO's Linux wheel does not hold it: set LD_LIBRARY_PATH to the one of an OpenVINO archive, or run "
            "`rsedge build` on the device, where the NPU driver brings it"
        )
    return {"NPU_PLATFORM": platform, "NPU_COMPILER_TYPE": "PLUGIN"}
