"""Where this user keeps devices of their own: a profile each, ``NAME.profile.yaml``, beside what devices were calibrated to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path, sha256_file
from rsedge.data.folders import config_folder

VARIABLE, SUFFIX = "RSEDGE_CALIBRATIONS", ".profile.yaml"


def _folder() -> Path | None:
    if given := os.environ.get(VARIABLE):
        return Path(given)
    config = config_folder()
    return None if config is None else config / "calibrations"


def own_folder() -> Path:
    """``$RSEDGE_CALIBRATIONS``, else ``rsedge/calibrations`` in the user's configuration folder (XDG).

    Raises:
        RequestError: this user has no home.
    """
    found = _folder()
    if found is None:
        raise RequestError(f"this user has no home folder to keep devices in; set {VARIABLE} to a folder")
    return found


def own_profiles() -> dict[str, Path]:
    """Files of the profiles that are kept, by the device's name, in the order of the names."""
    folder = _folder()
    files = [] if folder is None else sorted(folder.glob(f"*{SUFFIX}"))
    return {path.name.removesuffix(SUFFIX): path for path in files}


def keep(name: str, text: str) -> Path:
    """Keeps a profile, whole or not at all; an older one of that name is replaced."""
    path = own_folder() / f"{name}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def remove(name: str) -> Path:
    """Removes a kept profile; what the device was calibrated to stays.

    Raises:
        RequestError: none of that name is kept.
    """
    kept = own_profiles()
    if name not in kept:
        raise RequestError(f"no device '{name}' was added here; added are: {', '.join(kept) or 'none'}")
    kept[name].unlink()
    return kept[name]


def hashes(devices: Iterable[str]) -> dict[str, str]:
    """Hashes of the kept profiles among some devices, by name: what work for them rests on beside the package."""
    kept = own_profiles()
    return {name: sha256_file(kept[name]) for name in sorted(set(devices) & set(kept))}
