"""Edge deployment and compression for remote-sensing foundation models."""

__version__ = "0.1.0"
