"""How the names in a checkpoint become a module's names: data that stands in the rows. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from pydantic import Field, field_validator

from rsedge.data.errors import RequestError
from rsedge.data.record import Record

T = TypeVar("T")
WRAPPED = ("module.", "_orig_mod.")
"""What data-parallel training and torch.compile put before names."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a checkpoint's name.

    Attributes:
        name: the module's; None where the module has no place for it.
        prefixes: what was taken off it, in order.
        why: what it is left out by; empty where it is not.
    """

    name: str | None
    prefixes: tuple[str, ...] = ()
    why: str = ""


class KeyMap(Record):
    """The layout of a checkpoint: wrapping entries, prefixes, renames, and what may be left over or absent.

    Names outside the file's root are dropped; the others go through ``strip``, then the first of ``rename`` that matches; those
    matching ``ignored`` are dropped (before or after renaming). ``top`` entries are entered wherever they are present, so that a
    bare state dict loads too.

    Attributes:
        files: where the network lies in several files of a folder: their places there (a folder of weights in shards is a place
            too) -> what goes before the names in each.
        top: wrapping entries in order, each in the one before, e.g. ``state_dict`` or ``model``.
        roots: prefixes under one of which all tensors of the network lie; the first that a file has is taken, because scripts save
            a network that stands in two places twice. The empty one, last, is a file of the bare network.
        strip: prefixes to remove, each as often as it occurs. ``module.`` of data-parallel training and ``_orig_mod.`` of
            torch.compile are always removed.
        rename: regular expression (matched from the start of the name) -> replacement; the first match wins.
        ignored: regular expressions of checkpoint names that have no place in the module (queues, decoders, heads).
        absent: prefixes of module names that the checkpoint may lack, because no forward pass uses them.
        zero: module names that the checkpoint may lack and that are zero then, as its authors begin with when they go on from it.
        settings: options of the training script that the file keeps beside its weights (entries, joined by ``/``) -> the argument
            of the architecture that they set. Names and shapes do not show these.
        marks: regular expressions that must each match some raw name before a file is taken for this layout; a name with the
            entries around it (``state_dict/conv1.weight``) will do.
    """

    files: dict[str, str] = Field(default_factory=dict)
    top: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    rename: dict[str, str] = Field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()
    settings: dict[str, str] = Field(default_factory=dict)
    marks: tuple[str, ...] = ()

    @field_validator("rename", "ignored", "marks")
    @classmethod
    def _compiles(cls, patterns: T) -> T:
        for pattern in patterns:  # type: ignore[attr-defined]
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
        return patterns

    @cached_property
    def _renames(self) -> list[tuple[re.Pattern[str], str]]:
        return [(re.compile(old), new) for old, new in self.rename.items()]

    @cached_property
    def _dropped(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern) for pattern in self.ignored]

    def root(self, names: Iterable[str]) -> str:
        """The prefix under which a file with these names keeps the network; empty where it has none of ``roots``."""
        bare = [_unwrapped(name) for name in names]
        return next((root for root in self.roots if any(name.startswith(root) for name in bare)), "")

    def name(self, raw: str, root: str = "") -> str | None:
        """The module's name for a checkpoint's, or None where the module has no place for it.

        Args:
            root: of the file (:meth:`root`).
        """
        return self.fate(raw, root).name

    def fate(self, raw: str, root: str = "") -> Fate:
        """As :meth:`name`, with what was taken off and why a name is left out."""
        name, taken = raw, []
        if root:
            if not (name := _unwrapped(name)).startswith(root):
                return Fate(None, why=f"not under '{root}'")
            name = name[len(root) :]
        prefixes = (*WRAPPED, *self.strip)
        while prefix := next((p for p in prefixes if name.startswith(p)), ""):
            name = name[len(prefix) :]
            taken.append(prefix)
        if drop := self._drops(raw) or self._drops(name):
            return Fate(None, tuple(taken), f"matches '{drop}'")
        for old, new in self._renames:
            if found := old.match(name):
                name = found.expand(new) + name[found.end() :]
                break
        drop = self._drops(name)
        return Fate(None if drop else name, tuple(taken), f"matches '{drop}'" if drop else "")

    def _drops(self, name: str) -> str:
        """The pattern by which a name is left out; empty where none is."""
        return next((pattern.pattern for pattern in self._dropped if pattern.match(name)), "")

    def apply(self, state: Mapping[str, T]) -> dict[str, T]:
        """The entries under the module's names.

        Raises:
            RequestError: two entries come to the same name.
        """
        found: dict[str, T] = {}
        root = self.root(state)
        for raw, value in state.items():
            name = self.name(raw, root)
            if name in found:
                raise RequestError(f"checkpoint: '{raw}' is a second entry for '{name}'")
            if name is not None:
                found[name] = value
        return found

    def marked(self, names: Iterable[str]) -> bool:
        """Whether every mark matches some name; without marks nothing is recognised."""
        names = list(names)
        return bool(self.marks) and all(any(re.match(mark, name) for name in names) for mark in self.marks)

    @property
    def optional(self) -> tuple[str, ...]:
        """Prefixes of module names that the checkpoint may lack."""
        return (*self.absent, *self.zero)


def _unwrapped(name: str) -> str:
    while prefix := next((p for p in WRAPPED if name.startswith(p)), ""):
        name = name[len(prefix) :]
    return name
