"""Files that start a bundle with a machine: systemd units, container recipes, a CWL application package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from rsedge.data.errors import RequestError
from rsedge.data.files import write_bytes
from rsedge.runtimes.bundle.reading import Bundle
from rsedge.version import __version__

Kind = Literal["systemd", "container", "cwl"]
FILES: dict[Kind, tuple[str, ...]] = {
    "systemd": ("rsedge-serve.service", "rsedge-watch.service"),
    "container": ("Containerfile",),
    "cwl": ("infer.cwl",),
}
OWN_RUNTIME = {"tensorrt": ("Containerfile.l4t",)}
"""Runtimes that the device's own system brings, not an extra of ours, and the container recipe on that system."""
PLACE = re.compile(r"/[A-Za-z0-9._/-]+")
_SOURCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HOLE = re.compile(r"@\{([a-z_]+)\}@")


@dataclass(frozen=True)
class Places:
    """Where things lie on the machine that flies; all absolute, without spaces.

    Attributes:
        rsedge: the command, such as ``/opt/rsedge/bin/rsedge``.
        place: the bundle's folder or zip there.
        incoming: the folder that is watched.
        token: a file with the token, root's alone; None: the loopback without one.
        memory_mib: above which the process is ended.
    """

    rsedge: str = "/opt/rsedge/bin/rsedge"
    place: str = "/opt/rsedge/bundle"
    incoming: str = "/srv/rsedge/incoming"
    token: str | None = None
    port: int = 8080
    memory_mib: int = 2048
    image: str = "rsedge-bundle"

    def check(self) -> None:
        """
        Raises:
            RequestError: a place is not absolute, or has letters that unit files read as their own.
        """
        for name in ("rsedge", "place", "incoming", "token"):
            value = getattr(self, name)
            if value is not None and not PLACE.fullmatch(value):
                raise RequestError(
                    f"--{name} {value}: give an absolute path of letters, digits and . _ - / on the machine that flies"
                )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", self.image):
            raise RequestError(f"--image {self.image}: give the name of a container image, such as team/cloud-mask:1.0")


def deployment(kind: Kind, bundle: Bundle, places: Places) -> dict[str, str]:
    """The files of a kind, by name.

    Raises:
        RequestError: a place that cannot be.
    """
    places.check()
    if kind == "container" and (not bundle.path.is_dir() or not _SOURCE.fullmatch(bundle.path.resolve().name)):
        raise RequestError(
            f"{bundle.path}: a container recipe copies a bundle's folder, called by letters, digits and . _ -; unpack or rename it"
        )
    names = OWN_RUNTIME.get(bundle.target.runtime, FILES[kind]) if kind == "container" else FILES[kind]
    return {name: _filled(name, _values(bundle, places)) for name in names}


def write_deployment(kind: Kind, bundle: Bundle, places: Places, folder: Path) -> list[Path]:
    """Writes the files of a kind into a folder, which is made where it is not there."""
    found = deployment(kind, bundle, places)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        write_bytes(folder / name, text.encode())
    return [folder / name for name in found]


def _values(bundle: Bundle, places: Places) -> dict[str, str]:
    manifest = bundle.manifest
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", manifest.name).strip("-.").lower() or "bundle"
    runtime = manifest.target.runtime
    language = ["captions"] if manifest.language is not None else []
    extras = ",".join([*([] if runtime in OWN_RUNTIME else [runtime]), *language, "serve"])
    found = {
        "name": plain, "rsedge": places.rsedge, "bundle": places.place, "incoming": places.incoming, "port": str(places.port),
        "memory": f"{places.memory_mib}M", "memory_mib": str(places.memory_mib), "extras": extras,
        "source": bundle.path.resolve().name, "version": __version__, "image": places.image,
        "words": f"{manifest.task} by {plain} for {manifest.target.name}: {', '.join(map(_word, manifest.classes))}",
        "token": "# Another address than the loopback needs a token: --token, and --host behind ExecStart=.",
        "token_option": "",
    }  # fmt: skip
    if places.token is not None:
        found["token"] = (
            f"# {places.token} is root's alone; the service gets a copy.\nLoadCredential=token:{places.token}"
        )
        found["token_option"] = " --token-file %d/token"
    return found | {"hardening": _filled("hardening.conf", found).rstrip()}


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9 ._-]+", "-", name)


def _filled(name: str, values: dict[str, str]) -> str:
    text = (resources.files(__package__) / "files" / name).read_text(encoding="utf-8")
    return _HOLE.sub(lambda hole: values[hole[1]], text)
