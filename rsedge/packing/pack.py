"""Writes a pack: one folder with a bundle, what runs it, and a launcher; proves it before it is handed over.

A pack is for one version of Python and one kind of processor: those of the installed packages that it is made of. It writes
nothing into its own folder, so that it may lie on a read-only file system.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.data.errors import GateFailed, RequestError
from rsedge.data.files import replace_folder, sha256_file, write_bytes, write_json
from rsedge.data.json_text import read_object
from rsedge.data.record import validated
from rsedge.data.temporary import TemporaryFolder
from rsedge.packing.distributions import FLIES, GDAL, RUNTIMES, Interpreter, Runtime, Taken, taken
from rsedge.packing.elf import glibc, is_elf, loadable
from rsedge.packing.our_code import our_files
from rsedge.runtimes.bundle.manifest import FileEntry
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.version import __version__

LIB, BUNDLE, RUN, LISTED = "lib", "bundle", "run", "pack.json"
OURS = "rsedge"
PROOF_S = 120.0
LAUNCHER = """\
#!/bin/sh
# rsedge {version}, {target}; for {python} on {platform}. See pack.json.
#   ./run infer SCENE --output MAP      ./run verify      ./run watch FOLDER --output-dir DIR      ./run soak --period-ms 20
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P) || exit 4
python=${{PYTHON:-{python}}}
command -v "$python" >/dev/null 2>&1 || {{ echo "error: this pack needs {python}; name it by PYTHON=" >&2; exit 4; }}
"$python" {flags} -c 'import sys; sys.exit(sys.version_info[:2] != {version_info})' || {{
  echo "error: this pack is for {python}, and $python is another one; name it by PYTHON=, or make a pack for it" >&2; exit 4; }}
export PYTHONPATH="$here/lib" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
case "${{1-}}" in
  "" | -*) exec "$python" {flags} -m rsedge.cli "$@" ;;
esac
command=$1
shift
exec "$python" {flags} -m rsedge.cli "$command" "$here/bundle" "$@"
"""


@dataclass(frozen=True)
class Wanted:
    """What a pack shall be.

    Attributes:
        gdal: whether GeoTIFF is read and written; without it ENVI files, arrays and tables are.
        strip: whether symbols that only debuggers read are taken out of libraries, where `strip` is here.
    """

    python: Interpreter
    gdal: bool = True
    strip: bool = True


def pack(
    bundle: Bundle, wanted: Wanted, output: Path, told: Callable[[str], object] = lambda text: None
) -> dict[str, Any]:
    """Writes the pack of a bundle as ``output``, and returns what ``pack.json`` says.

    Raises:
        RequestError: there is no such runtime to pack, or ``output`` is there and no pack.
        MissingCapability: a package is not installed, or there is no room.
        GateFailed: the pack does not give the bundle's golden vector.
    """
    runtime = RUNTIMES.get(bundle.target.runtime)
    if runtime is None:
        raise RequestError(
            f"{bundle.path}: packs are made for {', '.join(RUNTIMES)}, and this bundle is for {bundle.target.runtime}"
        )
    if output.exists() and not (output / LISTED).is_file():
        raise RequestError(f"{output}: is there and no pack; name a folder that is not there")
    packages = [*FLIES, *(GDAL if wanted.gdal else ()), *runtime.packages]
    parts = [*taken(packages, wanted.python, bundle.target.device), Taken(OURS, __version__, our_files())]
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(output.parent) as temporary:
        made = temporary / "pack"
        _copy(parts, bundle, made)
        stripped = _stripped(made / LIB) if wanted.strip else 0
        _launcher(made, bundle, wanted.python, runtime)
        listed = _listed(made, parts, bundle, wanted, runtime, stripped)
        write_json(made / LISTED, listed)
        if runtime.own_python:
            told("running the golden vector in the pack")
            prove(made, wanted.python)
        replace_folder(made, output)
    return listed


def prove(folder: Path, python: Interpreter) -> None:
    """Runs ``run verify`` of a pack in an empty environment.

    Raises:
        GateFailed: it fails; says how.
    """
    command = [str(folder / RUN), "verify", "--threads", "1"]
    surroundings = {"PYTHON": python.executable, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROOF_S, env=surroundings, cwd="/", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GateFailed(f"{folder}: the pack cannot be started here ({error})") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GateFailed(f"the pack does not run here (exit code {done.returncode}): {last}")


def _copy(parts: Iterable[Taken], bundle: Bundle, made: Path) -> None:
    for part in parts:
        for name, source in part.files.items():
            place = made / LIB / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
    shutil.copytree(bundle.folder, made / BUNDLE, copy_function=shutil.copyfile)


def _stripped(folder: Path) -> int:
    """Bytes that debuggers alone read and that are gone; 0 where there is no `strip`."""
    program = shutil.which("strip")
    if program is None:
        return 0
    saved = 0
    for path in (p for p in folder.rglob("*") if p.is_file() and ".so" in p.name and is_elf(p)):
        small = path.with_name(f"{path.name}.stripped")
        done = subprocess.run(
            [program, "--strip-unneeded", "-o", str(small), str(path)], capture_output=True, check=False
        )
        if done.returncode == 0 and small.stat().st_size < path.stat().st_size and loadable(small.read_bytes()):
            saved += path.stat().st_size - small.stat().st_size
            small.replace(path)
        small.unlink(missing_ok=True)
    return saved


def _launcher(made: Path, bundle: Bundle, python: Interpreter, runtime: Runtime) -> None:
    text = LAUNCHER.format(
        version=__version__, target=bundle.target.name, python=python.name, platform=python.platform, version_info=python.version,
        flags="-s -S" if runtime.own_python else "-s",
    )  # fmt: skip
    write_bytes(made / RUN, text.encode())
    (made / RUN).chmod(0o755)


def _listed(
    made: Path, parts: list[Taken], bundle: Bundle, wanted: Wanted, runtime: Runtime, stripped: int
) -> dict[str, Any]:
    """What is in it and what it needs, for people and for who checks it on board."""
    files = {p.relative_to(made).as_posix(): p for p in sorted(made.rglob("*")) if p.is_file()}
    rows = {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()}
    of = {f"{LIB}/{name}": part.name for part in parts for name in part.files}
    sizes: dict[str, int] = {}
    for name, row in rows.items():
        owner = of.get(name, BUNDLE if name.startswith(f"{BUNDLE}/") else RUN)
        sizes[owner] = sizes.get(owner, 0) + int(str(row["bytes"]))
    versions = {part.name: part.version for part in parts}
    newest = max((glibc(path.read_bytes()) for path in files.values() if ".so" in path.name), default=(0, 0))
    return {
        "rsedge": __version__, "target": bundle.target.name, "bundle_sha256": bundle.manifest_sha256,
        "python": wanted.python.name, "platform": wanted.python.platform, "gdal": wanted.gdal, "glibc": ".".join(map(str, newest)),
        "system": list(runtime.system), "bytes": sum(sizes.values()), "stripped_bytes": stripped,
        "parts": [{"name": n, "version": versions.get(n), "bytes": b} for n, b in sorted(sizes.items(), key=lambda t: -t[1])],
        "files": rows,
    }  # fmt: skip


def check(folder: Path) -> list[str]:
    """What of a pack is missing, more, or not what ``pack.json`` says; nothing where it is whole.

    Raises:
        RequestError: it is no pack, or what lists its files is a link, cannot be read or is damaged.
    """
    listed = _files_listed(folder / LISTED)
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {LISTED}
    wrong = [f"{name}: is not listed" for name in sorted(there - set(listed))]
    wrong += [f"{name}: is missing" for name in sorted(set(listed) - there)]
    return wrong + [
        f"{n}: was altered" for n in sorted(there & set(listed)) if sha256_file(folder / n) != listed[n].sha256
    ]


def _files_listed(path: Path) -> dict[str, FileEntry]:
    """What ``pack.json`` says of the files.

    Raises:
        RequestError: names the file, the field that is wrong, and the way out.
    """
    if path.is_symlink():
        raise RequestError(f"{path}: is a link, and a pack's list lies in the pack; copy the pack again")
    try:
        found = read_object(path)
    except RequestError as error:
        raise RequestError(f"{error}; {path.parent} is no pack, or is damaged: copy it again") from error
    rows = found.get("files")
    if not isinstance(rows, dict):
        raise RequestError(f"{path}: files: does not list the pack's files with bytes and sha256; copy the pack again")
    try:
        return {name: validated(FileEntry, row, f"{path}: files.{name[:80]}") for name, row in rows.items()}
    except RequestError as error:
        raise RequestError(f"{error}; copy the pack again") from error
