"""What a downloaded checkpoint is and what of it is used (``rsedge teachers NAME --check FILE``); docs/checking.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rsedge.data.errors import RequestError
from rsedge.models.checkpoint import entered, read_checkpoint, setting, tensors_in
from rsedge.models.conformance import drawn
from rsedge.models.teachers import Teacher, as_trained, bare, content_of, fill_row, recognised, without_data
from rsedge.models.zoo import TeacherRow, teacher_row

Names = tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """A checkpoint as a row takes it.

    Attributes:
        teacher: the filled network.
        fits: the rows whose network the file fills, by its names and shapes; the one asked for may not be among them where its
            layout has nothing to be recognised by.
        entry: entries that were entered, each followed by ``/``; beside them are ``beside``.
        root: prefix under which the network lies; ``prefixes`` were taken off names as well.
        left_out: reason -> names in the file.
        absent: tensors of the network that the file lacks and no forward pass uses; ``zero``: those that are zero then.
        settings: what the file says of its training and the row takes over.
        read_off: arguments of the architecture in which the file differs from the row.
        drawn: the weights are those of the written rule (:mod:`rsedge.models.conformance`), not published ones.
    """

    path: Path
    teacher: Teacher
    fits: Names
    entry: str
    beside: Names
    root: str
    prefixes: Names
    used: int
    values: int
    left_out: Mapping[str, Names]
    absent: Names
    zero: Names
    settings: Mapping[str, Any]
    read_off: Mapping[str, Any]
    drawn: bool

    @property
    def row(self) -> TeacherRow:
        """As the file makes it: its task, classes and band contract."""
        return self.teacher.spec


def check_file(path: str | Path, name: str | None = None) -> Checked:
    """What a checkpoint is, by ``name``'s row or by the first that it is recognised as.

    Raises:
        RequestError: it is no row's, or not that of ``name`` (rows that it fits are named); IntegrityError: a damaged file.
    """
    path = Path(path)
    asked = None if name is None else teacher_row(name)
    content = read_checkpoint(path) if asked is None else content_of(asked, path)
    try:
        fits, problem = tuple(recognised(content, path)), ""
    except RequestError as error:
        if asked is None:
            raise
        fits, problem = (), str(error)
    row = asked or teacher_row(fits[0])
    try:
        return _checked(row, content, path, fits)
    except RequestError as error:
        if fits and row.name not in fits:
            raise RequestError(
                f"{path}: is no checkpoint of {row.name}; it fits {' and '.join(fits)} (rsedge teachers {fits[0]} --check {path}). "
                f"As {row.name}: {error}"
            ) from error
        raise RequestError(f"{error}{f' ({problem})' if problem and problem not in str(error) else ''}") from error


def _checked(row: TeacherRow, content: Any, path: Path, fits: Names) -> Checked:
    layout = row.checkpoint
    held_under, inner = entered(content, layout.top)
    raw = tensors_in(content, layout.top, path)
    tensors = bare(row, raw)
    wrapper = next(iter(raw)).removesuffix(next(iter(tensors)))
    root = layout.root(tensors)
    fates = {name: layout.fate(name, root) for name in tensors}
    left_out: dict[str, Names] = {}
    for name, fate in fates.items():
        if fate.name is None:
            left_out[fate.why] = (*left_out.get(fate.why, ()), name)
    trained = as_trained(row, content)
    teacher = fill_row(trained, tensors, path)
    filled = without_data(row, tensors)
    lacking = [name for name in teacher.net.state_dict() if name not in filled]
    zero = tuple(name for name in lacking if name in layout.zero)
    taken = [prefix for fate in fates.values() for prefix in fate.prefixes]
    return Checked(
        path=path, teacher=teacher, fits=fits, entry=held_under, beside=_beside(content, held_under, inner), root=root,
        prefixes=tuple(dict.fromkeys([*([wrapper] if wrapper else []), *taken])),
        used=len(filled), values=sum(t.numel() for t in filled.values()), left_out=left_out,
        absent=tuple(n for n in lacking if n not in zero and n.startswith(layout.absent or "\0")), zero=zero,
        settings={entry: value for entry in layout.settings if (value := setting(content, entry)) is not None},
        read_off={key: value for key, value in teacher.arch.items() if row.arch.get(key) != value},
        drawn=_drawn(tensors),
    )  # fmt: skip


def _beside(content: Any, entry: str, inner: Any) -> Names:
    """Entries around the weights, and what lies among them that is no tensor."""
    outer = [key for key in content if f"{key}/" != entry[: len(str(key)) + 1]] if entry else []
    return (*map(str, outer), *(str(key) for key, value in inner.items() if not isinstance(value, Tensor)))


def _drawn(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a matrix of the file is what the rule draws under its name or the end of it; where scripts put something before
    names that an author's network has too, no prefix says where its own begin."""
    matrices = [(name, value) for name, value in tensors.items() if value.ndim >= 2 and value.is_floating_point()][:8]
    for name, value in matrices:
        steps = name.split(".")
        ends = (".".join(steps[i:]) for i in range(len(steps)))
        if any(np.array_equal(value.float().numpy(), drawn(end, value.shape)) for end in ends):
            return True
    return False
