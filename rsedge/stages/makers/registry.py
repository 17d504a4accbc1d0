"""Who makes the files of which backend.

A backend that opens ONNX files needs nobody of its own. Another is given one by :func:`register_maker`, or by an entry point of the
group ``rsedge.makers`` under the name of its backend::

    [project.entry-points."rsedge.makers"]
    mine = "my_package.making:MAKER"
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Iterator

from rsedge.data.entry_points import MEND, entry_words, loaded
from rsedge.data.errors import MissingCapability
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.registry import backend
from rsedge.stages.context import RunContext
from rsedge.stages.makers import litert, myriad, openvino, tensorrt
from rsedge.stages.makers.base import Artefact, Maker
from rsedge.stages.makers.onnx import OnnxMaker

GROUP = "rsedge.makers"
_BUILT_IN: dict[str, Maker] = {
    made.backend: made
    for made in (openvino.MAKER, tensorrt.MAKER, OnnxMaker("onnxruntime"), litert.MAKER, myriad.MAKER)
}
_registered: dict[str, Maker] = {}


def register_maker(maker: Maker) -> Maker:
    """Adds what makes the files of a backend, for this process."""
    _registered[maker.backend] = maker
    return maker


def maker(name: str) -> Maker:
    """What makes the files of a backend.

    Raises:
        MissingCapability: nothing does, as it opens no ONNX; or the package that should is broken.
    """
    found = _BUILT_IN.get(name) or _registered.get(name) or _of_package(name)
    if found is not None:
        return found
    suffixes = backend(name).suffixes
    if ".onnx" not in suffixes:
        raise MissingCapability(
            f"runtime '{name}' opens {', '.join(suffixes)}, and nothing here makes such files; its package has to name what does "
            f"by an entry point of the group {GROUP}"
        )
    return OnnxMaker(name)


def by_maker(targets: Iterable[Target]) -> Iterator[tuple[Maker, list[Target]]]:
    """Targets by what makes their files, OpenVINO's first, the others as the recipe has them."""
    groups: dict[str, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.backend.name, []).append(target)
    for name in sorted(groups, key=lambda n: n != openvino.MAKER.backend):
        yield maker(name), groups[name]


def find_artefact(ctx: RunContext, target: Target) -> Artefact:
    """The model file of a target among the outputs of export and quantize."""
    return maker(target.backend.name).artefact(ctx, target)


@functools.cache
def _of_package(name: str) -> Maker | None:
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name == name:
            made, where = loaded("maker", point), entry_words("maker", point)
            if not isinstance(made, Maker) or made.backend != name:
                raise MissingCapability(f"{where}: {point.value} is no Maker of that backend; {MEND}")
            return made
    return None
