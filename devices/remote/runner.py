"""The runner: one file made of the modules that may travel, for ``python3 runner.pyz`` on the device.

It is a zip application (:mod:`zipapp`); the device needs Python 3.8 or newer, NumPy and the bundle's runtime, nothing
of rsedge. The same sources give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

import rsedge.data.errors
import rsedge.devices.onboard
import rsedge.runtimes.cores

RUNTIME_MODULES = (
    "checked",
    "onnx_parts",
    "cores",
    "openvino/core",
    "onnxruntime/core",
    "litert/core",
    "litert/flatbuffer",
    "tensorrt/cuda_driver",
    "tensorrt/module",
    "tensorrt/dla",
    "tensorrt/compile",
    "tensorrt/engine",
)
_MAIN = "import sys\n\nfrom rsedge.devices.onboard.main import main\n\nsys.exit(main())\n"


def travelling_modules() -> dict[str, Path]:
    """Path inside the runner -> source file."""
    onboard = Path(rsedge.devices.onboard.__file__).parent
    runtimes = Path(rsedge.runtimes.cores.__file__).parent
    found = {f"rsedge/devices/onboard/{p.name}": p for p in sorted(onboard.glob("*.py"))}
    found.update({f"rsedge/runtimes/{name}.py": runtimes / f"{name}.py" for name in RUNTIME_MODULES})
    found["rsedge/data/errors.py"] = Path(rsedge.data.errors.__file__)
    # The package itself, which keeps runtimes from sending anything home before one is imported.
    front = Path(rsedge.__file__)
    found.update({f"rsedge/{p.name}": p for p in (front, front.with_name("quiet.py"), front.with_name("version.py"))})
    return found


def build_runner() -> bytes:
    """The content of ``runner.pyz``."""
    files = {name: path.read_bytes() for name, path in travelling_modules().items()}
    for package in {parent.as_posix() for name in files for parent in PurePosixPath(name).parents[:-1]} - {"rsedge"}:
        files.setdefault(f"{package}/__init__.py", b"")
    files["__main__.py"] = _MAIN.encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return b"#!/usr/bin/env python3\n" + content.getvalue()
