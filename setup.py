"""The list of packages, from the folders: each room at the top level is a sub-package of ``rsedge``, with what lies inside it."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
ROOMS = sorted(init.parent.name for init in ROOT.glob("*/__init__.py") if init.parent.name not in ("rsedge", "tests"))


def packages() -> dict[str, str]:
    """Names of packages and their folders, relative to the root."""
    found = {}
    for top, name in [("rsedge", "rsedge"), *((room, f"rsedge.{room}") for room in ROOMS)]:
        for init in sorted((ROOT / top).rglob("__init__.py")):
            below = init.parent.relative_to(ROOT / top).parts
            found[".".join((name, *below))] = init.parent.relative_to(ROOT).as_posix()
    return found


setup(packages=list(packages()), package_dir=packages())
