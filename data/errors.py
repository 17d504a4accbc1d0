"""The five ways a command can end badly, each with its exit code.

Every error that a user can cause or mend is one of these; the command line prints ``str(error)`` and exits with
``error.exit_code``. Anything else is a bug and shows a traceback.
"""

from __future__ import annotations


class RsedgeError(Exception):
    """Base of all errors meant for the user. The message names the file, the field and the fix."""

    exit_code = 2


class RequestError(RsedgeError):
    """The request is wrong: recipe, scene, bands, checkpoint or bundle (exit code 2)."""


class IntegrityError(RequestError):
    """A file is not what its manifest says: truncated, altered or wrongly signed (exit code 2)."""


class GateFailed(RsedgeError):
    """The work was done, but an accuracy, speed or parity gate was not met (exit code 3)."""

    exit_code = 3


class MissingCapability(RsedgeError):
    """This machine lacks a runtime, an extra, a device, space or time (exit code 4)."""

    exit_code = 4


class NoRoom(MissingCapability):
    """The disk is full, or files may not get so large: the same command goes on once there is room (exit code 4)."""


class PartlyDone(RsedgeError):
    """Some of what was asked is done and stays, the rest failed and is listed (exit code 5)."""

    exit_code = 5


def missing_extra(module: str, extra: str | None, purpose: str) -> MissingCapability:
    """The error for a dependency that is not installed, with the command that installs it.

    Args:
        extra: that brings it; None of one that every installation has but boards without GDAL.
    """
    brings = module if extra is None else f"'rsedge[{extra}]'"
    return MissingCapability(f"{purpose} needs the Python module '{module}'. Install it: pip install {brings}")
