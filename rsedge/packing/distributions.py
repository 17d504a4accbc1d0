"""Files of installed packages that a pack takes: what a bundle's runtime and our code that flies need, not the rest of a wheel."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rsedge.data.errors import MissingCapability, RequestError
from rsedge.packing.elf import closure, is_elf

DROPPED = (
    "*/__pycache__/*", "*.pyc", "*.pyi", "*.pxd", "*.pyx", "*.pxi", "*.h", "*.hpp", "*.c", "*.cpp", "*.a", "*.pc", "*.cmake",
    "*/tests/*", "*/_tests/*", "*/testing/tests/*", "*/include/*", "*/docs/*",
)  # fmt: skip
"""Of every package: what only developers read."""
KEPT_OF_DIST_INFO = ("METADATA", "entry_points.txt", "licenses/*", "LICENSE*", "COPYING*", "NOTICE*")
FLIES = ("numpy", "pydantic", "pyyaml", "rich", "typer", "cryptography", "psutil")
"""What our code that flies imports, but for GDAL."""
GDAL = ("rasterio",)
Name = str


@dataclass(frozen=True)
class Rule:
    """What is taken of one package.

    Attributes:
        drop: patterns of files that are not taken.
        without: packages that it asks for and that what flies never reaches.
        libraries: a folder of shared libraries, of which only those are taken that ``roots`` reach.
        roots: names, patterns, of the libraries that are wanted; what the package's other files ask for comes by itself.
    """

    drop: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    libraries: str = ""
    roots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runtime:
    """What brings a runtime: packages, and what the device's own system must have."""

    packages: tuple[str, ...]
    system: tuple[str, ...] = ()
    own_python: bool = True
    """Whether the pack's Python sees nothing but the pack."""


RUNTIMES: Mapping[str, Runtime] = {
    "openvino": Runtime(("openvino",)),
    "onnxruntime": Runtime(("onnxruntime",)),
    "litert": Runtime(("ai-edge-litert",)),
    "tensorrt": Runtime(
        (),
        (
            "TensorRT 10.3 or newer with its Python bindings (JetPack 6: the packages tensorrt and python3-libnvinfer)",
            "CUDA's driver library libcuda.so.1 (JetPack: nvidia-l4t-cuda)",
        ),
        own_python=False,
    ),
}
PLUGINS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("libopenvino_intel_cpu_plugin.so", "libopenvino_arm_cpu_plugin.so"),
    "gpu": ("libopenvino_intel_gpu_plugin.so",),
    "npu": ("libopenvino_intel_npu_plugin.so",),
}
"""OpenVINO's by device; a device of no row is a CPU."""


def rules(device: str) -> dict[Name, Rule]:
    """By package; one without a row is taken as it is, but for :data:`DROPPED`."""
    plugins = next((names for kind, names in PLUGINS.items() if device.startswith(kind)), PLUGINS["cpu"])
    gpu = () if device.startswith("gpu") else ("openvino/libs/cache.json",)
    return {
        "openvino": Rule(
            drop=("openvino/cmake/*", "openvino/tools/*", "openvino/frontend/*/*", "openvino/torch/*", "openvino/exe/*", *gpu),
            without=("openvino-telemetry",),
            libraries="openvino/libs",
            roots=(*plugins, "libopenvino_ir_frontend.so*", "libtbbbind_2_5.so*"),
        ),
        "onnxruntime": Rule(
            drop=("onnxruntime/tools/*", "onnxruntime/transformers/*", "onnxruntime/quantization/*", "onnxruntime/datasets/*",
                  "onnxruntime/backend/*", "onnxruntime/capi/training/*", "onnxruntime/capi/libonnxruntime.so*"),
            without=("flatbuffers", "protobuf", "coloredlogs", "sympy"),
        ),
        "ai-edge-litert": Rule(
            drop=("ai_edge_litert/*/*", "ai_edge_litert/*_pb2.py", "ai_edge_litert/libLiteRt*", "ai_edge_litert/*_converter*"),
            without=("protobuf", "tqdm", "ml-dtypes", "backports-strenum"),
        ),
        "numpy": Rule(
            drop=("numpy/f2py/*", "numpy/distutils/*", "numpy/_core/lib/*", "numpy/random/lib/*", "numpy/_pyinstaller/*")
        ),
        "rasterio": Rule(drop=("rasterio/rio/*", "rasterio/_example*"), without=("certifi", "click-plugins", "cligj", "pyparsing")),
        "pygments": Rule(drop=("pygments/lexers/[!_]*", "pygments/formatters/[!_]*")),
        "cryptography": Rule(without=("cffi",)),
        "pydantic": Rule(drop=("pydantic/v1/*", "pydantic/mypy.py")),
    }  # fmt: skip


@dataclass(frozen=True)
class Interpreter:
    """A Python and where its packages lie; the pack is for this very version of it."""

    executable: str
    version: tuple[int, int]
    platform: str
    sites: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as ``python3.11``."""
        return f"python{self.version[0]}.{self.version[1]}"


def interpreter(executable: str) -> Interpreter:
    """Asks a Python what it is.

    Raises:
        RequestError: it cannot be run.
    """
    question = (
        "import json, sys, sysconfig; paths = sysconfig.get_paths(); print(json.dumps([list(sys.version_info[:2]), "
        "sysconfig.get_platform(), list(dict.fromkeys([paths['purelib'], paths['platlib']]))]))"
    )
    try:
        done = subprocess.run([executable, "-c", question], capture_output=True, text=True, timeout=60, check=True)
        version, platform, sites = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise RequestError(f"--python {executable}: it cannot be asked what it is ({error})") from error
    return Interpreter(executable, (version[0], version[1]), platform, tuple(sites))


@dataclass
class Taken:
    """One package's files: place in the pack -> file here."""

    name: Name
    version: str
    files: dict[str, Path] = field(default_factory=dict)


def taken(packages: Iterable[Name], python: Interpreter, device: str) -> list[Taken]:
    """The packages, and those they ask for, with the files that fly.

    Raises:
        MissingCapability: one is not installed there.
    """
    known, found = rules(device), dict[Name, Taken]()
    waiting = [(name, "") for name in packages]
    while waiting:
        name, asked_by = waiting.pop(0)
        if name in found:
            continue
        distribution = _distribution(name, asked_by, python)
        rule = known.get(name, Rule())
        found[name] = Taken(name, distribution.version, _files(distribution, rule))
        waiting += [(one, name) for one in _asked_for(distribution, python) if one not in rule.without]
    return list(found.values())


def plain(name: str) -> Name:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(name: Name, asked_by: str, python: Interpreter) -> importlib.metadata.Distribution:
    for one in importlib.metadata.distributions(path=list(python.sites)):
        if plain(one.metadata["Name"] or "") == name:
            return one
    what = f", which {asked_by} needs," if asked_by else ""
    raise MissingCapability(
        f"{python.executable}: the package '{name}'{what} is not installed there; a pack is made of installed packages: "
        f"{python.executable} -m pip install {name}"
    )


def _asked_for(distribution: importlib.metadata.Distribution, python: Interpreter) -> list[Name]:
    """Names that hold for this Python on Linux, without extras."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError as error:
        raise MissingCapability("packing needs the Python module 'packaging': pip install packaging") from error
    version = ".".join(map(str, python.version))
    about = {"extra": "", "python_version": version, "python_full_version": f"{version}.0"}
    wanted = [Requirement(text) for text in distribution.requires or []]
    return [plain(one.name) for one in wanted if one.marker is None or one.marker.evaluate(about)]


def _files(distribution: importlib.metadata.Distribution, rule: Rule) -> dict[str, Path]:
    if distribution.files is None:
        raise MissingCapability(
            f"{distribution.metadata['Name']}: has no list of its files (RECORD); install it by pip"
        )
    found = {}
    for entry in distribution.files:
        name = entry.as_posix()
        if (
            not _outside(name)
            and _wanted(name, rule)
            and (path := Path(str(distribution.locate_file(entry)))).is_file()
        ):
            found[name] = path
    return _reached(found, rule) if rule.libraries else found


def _outside(name: str) -> bool:
    """Scripts and data that a wheel puts elsewhere."""
    return name.startswith(("../", "/"))


def _wanted(name: str, rule: Rule) -> bool:
    top, _, inside = name.partition("/")
    if top.endswith(".dist-info"):
        return any(fnmatch.fnmatch(inside, pattern) for pattern in KEPT_OF_DIST_INFO)
    return not any(fnmatch.fnmatch(name, pattern) for pattern in (*DROPPED, *rule.drop))


def _reached(files: Mapping[str, Path], rule: Rule) -> dict[str, Path]:
    """Without the libraries that nothing wanted asks for."""
    inside: Callable[[str], bool] = lambda name: str(PurePosixPath(name).parent) == rule.libraries  # noqa: E731
    libraries = {PurePosixPath(name).name: path for name, path in files.items() if inside(name)}
    shared = {name: path for name, path in libraries.items() if is_elf(path)}
    others = {
        f"own:{name}": path for name, path in files.items() if not inside(name) and ".so" in name and is_elf(path)
    }
    roots = [name for name in shared if any(fnmatch.fnmatch(name, pattern) for pattern in rule.roots)]
    kept = closure([*roots, *others], {**shared, **others})
    return {
        n: p for n, p in files.items() if not inside(n) or PurePosixPath(n).name in kept or p not in shared.values()
    }
