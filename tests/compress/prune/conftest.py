"""Small networks on a busy machine: one thread is as fast as two, and does not wait for the other."""

from tests.one_thread import one_thread

__all__ = ["one_thread"]
