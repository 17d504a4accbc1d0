"""Folders of the user's, and whether something is a folder or a file at all."""

from __future__ import annotations

import os
from pathlib import Path

from rsedge.data.errors import MissingCapability, RequestError

CACHE_VARIABLE = "RSEDGE_CACHE"


def config_folder() -> Path | None:
    """Where the user's settings of rsedge lie: ``$XDG_CONFIG_HOME/rsedge``, or ``~/.config/rsedge``; None for a user without
    a home. A relative ``XDG_CONFIG_HOME`` is ignored, as its standard asks: settings do not depend on where a command is run."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if base.is_absolute():
        return base / "rsedge"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home / ".config" / "rsedge" if home.is_absolute() else None


def cache_folder() -> Path:
    """Where rsedge keeps what can be made anew: ``RSEDGE_CACHE``, or ``rsedge`` in the user's cache folder.

    Raises:
        MissingCapability: neither is known.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "rsedge"
    except RuntimeError as error:
        raise MissingCapability(
            f"this user has no home folder to keep in what can be made anew; set {CACHE_VARIABLE} to a folder of its own"
        ) from error


def user_path(text: str | Path) -> Path:
    """A path as people write it: ``~`` is their home, ``~NAME`` somebody's.

    Raises:
        RequestError: there is nobody of that name, or no home.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise RequestError(
            f"{text}: there is no home folder behind '{Path(text).parts[0]}'; write the path out (a file of that name: ./{text})"
        ) from error


def is_folder(path: Path) -> bool:
    """Whether there is a folder; a name that no disk can hold is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether there is a plain file; a name that no disk can hold is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
