"""Edge deployment and compression for remote-sensing foundation models."""

from rsedge.quiet import keep_quiet

__version__ = "0.1.0"

keep_quiet()
