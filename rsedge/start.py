"""Where the ``rsedge`` command begins, before anything else is imported: an early Ctrl-C ends it as quietly as a late one."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the command line."""
    open_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line listens: nothing is to be cleared up yet
    from rsedge.cli.main import main as run

    run()


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
