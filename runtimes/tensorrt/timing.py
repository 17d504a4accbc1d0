"""Kernel times: which kernels were fastest, kept so that a rebuild chooses the same ones.

They lie in the device's own cache (:mod:`rsedge.runtimes.device_cache`), for one TensorRT and one GPU. TensorRT itself only warns
when they do not fit; here they are refused, and ``--rebuild`` measures anew.
"""

from __future__ import annotations

from rsedge.data.errors import MissingCapability
from rsedge.data.record import validated
from rsedge.runtimes.device_cache import Slot, load, store
from rsedge.runtimes.tensorrt.record import Machine


def read_timing(slot: Slot, here: Machine) -> bytes:
    """The times kept on this machine, empty where there are none.

    Raises:
        IntegrityError: altered. MissingCapability: measured by another TensorRT; names both sides.
    """
    built = load(slot)
    if built is None:
        return b""
    there = validated(Machine, built.about, built.path)
    if there != here:
        raise MissingCapability(
            f"{built}: was measured by {there}, this machine has {here}; times do not carry over, {built.rebuild}"
        )
    return built.content


def write_timing(slot: Slot, content: bytes, here: Machine) -> None:
    """Keeps the times in place of older ones."""
    store(slot, content, here.model_dump())
