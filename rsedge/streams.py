"""Standard streams for a process that was started without some of them. Needs the standard library alone."""

from __future__ import annotations

import os
import sys


def open_streams() -> None:
    """Gives a process that was started without stdin, stdout or stderr (daemons) an empty one.

    Else the next file that is opened gets the number of the missing stream, and what a library prints goes into it.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
