"""OpenVINO 2022.3.2 in an environment of its own: the last release that knows the Myriad X, run as a child process.

Its wheel (Python 3.10, NumPy below 1.24) holds the CPU plugin but no MYRIAD plugin. So the model is converted and checked
here by that release itself, and run on the VPU where ``RSEDGE_OPENVINO2022`` names the Python of an installation that has
the plugin (Intel's 2022.3 archive).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from rsedge.data.bands import InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.folders import cache_folder
from rsedge.data.temporary import TemporaryFolder
from rsedge.runtimes.checked import Model, model_parts
from rsedge.runtimes.cores import threads_used
from rsedge.runtimes.session import INPUT, Array, Arrays, SessionBase, check_contract, outputs_of, parse_spec

VERSION = "2022.3.2"
VARIABLE = "RSEDGE_OPENVINO2022"
SETUP = "rsedge setup-myriad"
REQUIREMENTS = (f"openvino=={VERSION}", "numpy<1.24")
LARGEST = 65504.0
"""The largest finite fp16. The VPU takes DN as fp16: larger ones would become infinite."""
_WORKER = Path(__file__).with_name("worker.py")
_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}


def default_environment() -> Path:
    """Where :func:`create_environment` puts it: the user's cache folder."""
    return cache_folder() / f"openvino-{VERSION}"


def find_environment() -> Path | None:
    """The Python that has OpenVINO 2022.3: the one that ``RSEDGE_OPENVINO2022`` names, or the created environment's."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    python = default_environment() / "bin" / "python"
    return python if python.exists() else None


def need_environment() -> Path:
    """As :func:`find_environment`.

    Raises:
        MissingCapability: there is none; says how to make one.
    """
    python = find_environment()
    if python is None:
        raise MissingCapability(
            f"Myriad models are made by OpenVINO {VERSION}, which needs an environment of its own with Python 3.10. "
            f"Make it once: {SETUP} (about 180 MB), or set {VARIABLE} to the Python of one you have"
        )
    if not python.is_file():
        raise MissingCapability(f"{VARIABLE}={python}: no such Python; unset it and run: {SETUP}")
    return python


def find_python310() -> Path | None:
    """A Python 3.10: ``python3.10`` on the path, or one of pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(root.glob("versions/3.10*/bin/python3.10"))
    found = str(installed[-1]) if installed else shutil.which("python3.10")
    return Path(found) if found else None


def create_environment(folder: Path | None = None, python: Path | None = None) -> Path:
    """Makes the environment from the package registry and returns its Python; one that is there already is kept.

    Args:
        folder: where; None: the user's cache folder. It appears whole or not at all.
        python: a Python 3.10; None looks for one.

    Raises:
        MissingCapability: no Python 3.10, or the packages cannot be installed (with the installer's words).
    """
    folder = folder or default_environment()
    made = folder / "bin" / "python"
    if made.is_file():
        return made
    interpreter = python or find_python310()
    if interpreter is None:
        raise MissingCapability(
            f"no Python 3.10 on this machine (looked on the PATH and among pyenv's), which OpenVINO {VERSION} needs; "
            "install one, for example: pyenv install 3.10"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(folder.parent) as place:
        temporary = place / folder.name
        temporary.mkdir()
        inside = str(temporary / "bin" / "python")
        if uv := shutil.which("uv"):
            _run([uv, "venv", "--quiet", "--allow-existing", "--python", str(interpreter), str(temporary)])
            _run([uv, "pip", "install", "--quiet", "--python", inside, *REQUIREMENTS])
        else:
            _run([str(interpreter), "-m", "venv", str(temporary)])
            _run([inside, "-m", "pip", "install", "--quiet", *REQUIREMENTS])
        temporary.rename(folder)
    return made


def convert(onnx_path: Path, xml_path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """ONNX (opset 17 at most) -> IR version 11 with fp16 weights, written by OpenVINO 2022.3.

    Args:
        metadata: texts for ``rt_info``, by key.

    Returns:
        ``version`` and ``operations``: type, name, element types and attributes of every operation but constants.

    Raises:
        RequestError: that release cannot read the graph. MissingCapability: there is no environment.
    """
    python = need_environment()
    with TemporaryFolder() as folder:
        place = folder / "metadata.json"
        place.write_text(json.dumps(metadata), encoding="utf-8")
        child = _start(python, subprocess.PIPE, "convert", str(onnx_path), str(xml_path), str(place))
        try:
            output, errors = child.communicate()
        finally:
            child.kill()  # nothing where it has ended by itself
    found = _first_line(output, errors, python)
    if "error" in found:
        raise RequestError(f"{onnx_path}: OpenVINO {VERSION} cannot convert this model: {found['error']}")
    return found


class OpenVino2022Session(SessionBase):
    """An IR run by OpenVINO 2022.3 in a child process, on ``MYRIAD`` or, for checks, on ``CPU``.

    The child gets the model's bytes, checked here, over its pipe; it opens no file. DN above 65504 are taken as 65504, the largest
    number of the VPU's fp16, on both devices.
    """

    runtime = "openvino"

    def __init__(
        self,
        path: Model,
        spec: InputSpec | None,
        device: str = "MYRIAD",
        precision: str = "fp16",
        threads: int | None = None,
    ) -> None:
        python = need_environment()
        parts = model_parts(path)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the session
        self._child = _start(python, self._errors, "serve", device, str(threads_used(threads)))
        try:
            self._give(parts)
            about = self._greeting(path, device, python)
            super().__init__(path, spec or parse_spec(stored_text(parts[0], path, "rsedge"), path), device, precision)
            self.runtime_version = about["version"]
            check_contract(path, about["inputs"], about["outputs"])
            shape, dtype = about["inputs"][INPUT]
            if dtype not in _DTYPES:
                raise RequestError(f"{path}: '{INPUT}' has type {dtype}; export it for the VPU with float32")
            self._graph_input(tuple(shape), np.dtype(_DTYPES[dtype]))
        except BaseException:
            self._stop()
            raise

    def _give(self, parts: tuple[bytes, bytes]) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already; the greeting tells why
            for part in parts:
                _send_bytes(self._child.stdin, part)
            self._child.stdin.flush()

    def _greeting(self, model: Model, device: str, python: Path) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.strip():
            self._child.wait()
            self._errors.seek(0)
        about = _first_line(line, self._errors.read(), python)
        if "missing" in about:
            raise MissingCapability(
                f"{model}: OpenVINO {about['version']} here finds no {device} (it finds: {', '.join(about['found'])}). "
                f"The wheel has no MYRIAD plugin: install the OpenVINO 2022.3 archive, attach the VPU and set {VARIABLE} "
                "to its Python"
            )
        if "error" in about:
            raise RequestError(f"{model}: OpenVINO {VERSION} cannot load this model for {device}: {about['error']}")
        return about

    def _run(self, dn: Array) -> Arrays:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            _send(self._child.stdin, np.minimum(dn, LARGEST).astype(dn.dtype))
            parts = [_receive(self._child.stdout) for _ in range(2)]
        except (BrokenPipeError, EOFError) as error:
            self._stop()
            raise MissingCapability(f"{self._path}: OpenVINO {VERSION} ended in the middle of the work") from error
        return outputs_of(parts[0], parts[1])

    def close(self) -> None:
        super().close()
        self._stop()

    def _stop(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()
        self._errors.close()


def stored_text(xml: bytes, where: Model, key: str) -> str | None:
    """A text of an IR's ``rt_info``, read without OpenVINO; None where there is none.

    Raises:
        RequestError: it is no XML.
    """
    import xml.etree.ElementTree as ElementTree

    try:
        found = ElementTree.fromstring(xml).find(f"rt_info/{key}")
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise RequestError(f"{where}: truncated, altered or no IR ({error})") from error
    return None if found is None else found.get("value")


def _start(python: Path, errors: int | IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
    outside = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    command = [str(python), "-W", "ignore", str(_WORKER), *arguments]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=outside)
    except OSError as error:
        raise MissingCapability(f"{python}: cannot be started ({error}); make it anew: {SETUP}") from error


def _send(pipe: IO[bytes], array: Array) -> None:
    """The worker's framing: eight bytes of length, then .npy."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    _send_bytes(pipe, content.getbuffer())
    pipe.flush()


def _send_bytes(pipe: IO[bytes], content: bytes | memoryview) -> None:
    pipe.write(len(content).to_bytes(8, "big"))
    pipe.write(content)


def _receive(pipe: IO[bytes]) -> Array:
    length = int.from_bytes(_exactly(pipe, 8), "big")
    array: Array = np.load(io.BytesIO(_exactly(pipe, length)), allow_pickle=False)
    return array


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    content = pipe.read(count)
    if len(content) < count:
        raise EOFError
    return content


def _first_line(output: bytes, errors: bytes, python: Path) -> dict[str, Any]:
    try:
        found = json.loads(output.splitlines()[0])
    except (IndexError, ValueError) as error:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise MissingCapability(
            f"{python}: OpenVINO {VERSION} does not start there ({last[0]}); run: {SETUP}"
        ) from error
    return dict(found)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingCapability(f"{command[0]}: cannot be started ({error})") from error
    if done.returncode:
        last = " ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
        raise MissingCapability(
            f"the environment for OpenVINO {VERSION} cannot be made: {' '.join(command[:3])}: {last}"
        )
