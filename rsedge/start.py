"""Where the ``rsedge`` command begins, before anything else is imported: an early Ctrl-C ends it as quietly as a late one."""

from __future__ import annotations

import signal

from rsedge.streams import open_streams


def main() -> None:
    """Runs the command line."""
    open_streams()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command line listens: nothing is to be cleared up yet
    from rsedge.cli.main import main as run

    run()
