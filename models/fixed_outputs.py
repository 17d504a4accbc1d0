"""What a teacher gives on fixed inputs: in figures that two laboratories compare, and array by array against the authors' code.

docs/checking.md has the inputs, the names and the format of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import RequestError
from rsedge.models.comparing import CORNER_CHANNELS, Arrays, Held, held, summed_up
from rsedge.models.conformance import contract_input, meant
from rsedge.models.families import family
from rsedge.models.features import Feature
from rsedge.models.parts import Part, named
from rsedge.models.teachers import Teacher

Array = npt.NDArray[Any]
INPUT = "input."
"""Before the names of inputs in a file of arrays."""
SAMPLES = {"CHW": 2, "TCHW": 2, "TC": 2, "C": 16}
"""By layout."""
INPUT_NAMES = {"TC": "series", "C": "place"}
FIRST = 8
"""Tokens that are kept value by value."""
DIRECTIONS = 5
ENDS = (".corner", ".mean", ".std", ".sumabs", ".first")
"""Of names of what is kept of maps and tokens."""


@dataclass(frozen=True)
class Figures:
    """An output in a few numbers.

    Attributes:
        fingerprint: its products with fixed directions of normal deviates, over its own length: another order of the same values
            has another one.
    """

    name: str
    shape: tuple[int, ...]
    finite: bool
    mean: float
    std: float
    largest: float
    fingerprint: tuple[float, ...]


def figures(name: str, output: Array) -> Figures:
    wide = output.astype(np.float64).ravel()
    length = float(np.linalg.norm(wide)) or 1.0
    rng = np.random.default_rng(0)
    products = tuple(float(rng.standard_normal(wide.size) @ wide) / length for _ in range(DIRECTIONS))
    finite, largest = bool(np.isfinite(wide).all()), float(np.abs(wide).max())
    return Figures(name, output.shape, finite, float(wide.mean()), float(wide.std()), largest, products)


def parts_of(teacher: Teacher) -> dict[str, Part]:
    """The graphs to run, each with fixed inputs: the family's parts, else the network with its band contract's under ``net``."""
    made = family(teacher.spec.family).parts
    if made is not None:
        return {name: _with_deviates(part) for name, part in made(teacher.net).items()}
    spec = teacher.spec.input_spec
    name = INPUT_NAMES.get(spec.layout, "image")
    inputs = {name: contract_input(spec, SAMPLES[spec.layout])}
    return {"net": Part(teacher.net, inputs, ("output",), (name,) if meant(spec) else ())}


def _with_deviates(part: Part) -> Part:
    """Normal deviates, the n-th input's from the generator of seed n, where values have no meaning of their own."""
    given = part.inputs.items()
    inputs = {n: t if n in part.meant else _deviates(t.shape, seed) for seed, (n, t) in enumerate(given)}
    return Part(part.net, inputs, part.outputs, part.meant)


def _deviates(shape: Iterable[int], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32))


@torch.no_grad()
def outputs_of(part: Part) -> dict[str, Array]:
    """A part's outputs by name, on its inputs."""
    return {name: _array(one) for name, one in named(part.outputs, part.net(*part.inputs.values())).items()}


def kept(name: str, output: Array, channels: int = CORNER_CHANNELS) -> dict[str, Array]:
    """What is kept of an output (samples first): vectors whole; of maps (N, C, rows, columns) and of tokens (N, L, C) a few places
    and figures over all."""
    if output.ndim == 4:
        return summed_up(name, output, channels)
    if output.ndim == 3:
        wide = output.astype(np.float64)
        return {f"{name}.first": output[:, :FIRST], f"{name}.mean": wide.mean(1), f"{name}.std": wide.std(1)}
    return {name: output}


@dataclass(frozen=True)
class Reference:
    """Arrays that the authors' code made: what it was given, where that is stored, and its outputs."""

    path: Path
    inputs: Arrays
    outputs: Arrays


def read_reference(path: str | Path) -> Reference:
    """An ``.npz`` of arrays ``input.NAME`` and outputs by name; texts in it are left alone.

    Raises:
        RequestError: it is no such file, or a number in it is not finite.
    """
    path = Path(path)
    arrays = {name: array for name, array in read_arrays(path).items() if array.dtype.kind in "fiu" and array.ndim}
    for name, array in arrays.items():
        if not array.size or not np.isfinite(array).all():
            raise RequestError(f"{path}: array '{name}' {'is not finite' if array.size else 'is empty'}; make it anew")
    outputs = {name: array for name, array in arrays.items() if not name.startswith(INPUT)}
    if not outputs:
        raise RequestError(f"{path}: holds no output; its arrays: {', '.join(arrays) or 'none'} (docs/checking.md)")
    return Reference(path, {name.removeprefix(INPUT): a for name, a in arrays.items() if name not in outputs}, outputs)


def against(teacher: Teacher, reference: Reference) -> list[Held]:
    """Each output of a reference held against what the teacher gives on the same inputs, by the part that takes these.

    Raises:
        RequestError: its inputs are no part's, or none of its outputs is the network's.
    """
    *others, last = parts_of(teacher).values()
    for part in others:
        try:
            return _against(teacher, part, reference)
        except RequestError:
            continue
    return _against(teacher, last, reference)


def _against(teacher: Teacher, part: Part, reference: Reference) -> list[Held]:
    part = with_stored(part, reference)
    bases = {_base(name) for name in reference.outputs}
    with _listening(teacher, bases) as found:
        given = outputs_of(part)
    first = next(iter(given.values()))
    usual = dict.fromkeys(("output", "features", "embedding" if teacher.spec.task == "embedding" else "logits"), first)
    # What goes into a head is `features`, whatever a part calls what comes out of it.
    every = usual | given | {name: _array(one) for name, one in found.items()}
    if not bases & set(every):
        known = [*usual, *given, *(f.name.removeprefix("net.") for f in teacher.features)]
        raise RequestError(
            f"{reference.path}: none of its outputs ({', '.join(sorted(bases))}) is the network's: "
            f"{', '.join(dict.fromkeys(known))}"
        )
    ours: dict[str, Array] = {}
    for name in reference.outputs:
        base = _base(name)
        if base in every:
            corner = reference.outputs.get(f"{base}.corner")
            channels = CORNER_CHANNELS if corner is None or corner.ndim < 2 else corner.shape[1]
            ours |= {name: every[base]} if base == name else kept(base, every[base], channels)
    return held(reference.outputs, ours)


def with_stored(part: Part, reference: Reference) -> Part:
    """The part with the inputs that a reference stores, told by name, else by the shape of one sample.

    Inputs that it lacks are drawn for as many samples as it stores of the others; without any, for as many as its outputs have.

    Raises:
        RequestError: an array is none of the part's inputs.
    """
    stored = {_input_of(part, name, array, reference.path): array for name, array in reference.inputs.items()}
    samples = len(next(iter((stored or reference.outputs).values())))
    inputs = {
        name: torch.from_numpy(stored[name]).to(own.dtype)
        if name in stored
        else _as_many(own, samples, name in part.meant, seed)
        for seed, (name, own) in enumerate(part.inputs.items())
    }
    return Part(part.net, inputs, part.outputs, part.meant)


def _as_many(own: Tensor, samples: int, has_meaning: bool, seed: int) -> Tensor:
    """A fixed input for another number of samples; deviates are drawn on, what has a meaning is repeated if it is one."""
    if samples <= len(own):
        return own[:samples]
    if has_meaning:
        return own.expand(samples, *own.shape[1:]) if len(own) == 1 else own
    return _deviates((samples, *own.shape[1:]), seed)


def _input_of(part: Part, name: str, array: Array, where: Path) -> str:
    alike = [own for own, tensor in part.inputs.items() if tuple(tensor.shape[1:]) == array.shape[1:]]
    if name in alike or len(alike) == 1:
        return name if name in alike else alike[0]
    own = ", ".join(f"{n} (samples, {', '.join(map(str, t.shape[1:]))})" for n, t in part.inputs.items())
    raise RequestError(f"{where}: array '{INPUT}{name}' {array.shape} is none of the network's inputs: {own}")


@contextmanager
def _listening(teacher: Teacher, names: set[str]) -> Iterator[dict[str, Tensor]]:
    """Those of ``names`` that are the network's features, maps with channels first; as ``features`` what goes into its head."""
    found: dict[str, Tensor] = {}
    features = {feature.name.removeprefix("net."): feature for feature in teacher.features}
    handles = []
    for name in names:
        feature = features.get(name.removeprefix("net."))
        if feature is not None:
            module = teacher.net.get_submodule(feature.module.removeprefix("net."))
            handles.append(module.register_forward_hook(_keeping(found, name, feature)))
    head = dict(teacher.net.named_modules()).get((teacher.spec.head or "").rpartition(".")[0])
    if head is not None and head is not teacher.net:
        handles.append(head.register_forward_pre_hook(lambda module, inputs: found.update(features=inputs[0])))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keeping(found: dict[str, Tensor], name: str, feature: Feature) -> Callable[[nn.Module, Any, Any], None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        one = feature.taken(output)
        found[name] = one.permute(0, 3, 1, 2) if feature.layout == "NHWC" else one

    return keep


def _base(name: str) -> str:
    return next((name.removesuffix(end) for end in ENDS if name.endswith(end)), name)


def _array(tensor: Tensor) -> Array:
    return tensor.numpy(force=True)


def reference_arrays(part: Part, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Our outputs and the inputs that made them, as :func:`read_reference` takes them."""
    stored = {f"{INPUT}{name}": tensor.numpy(force=True) for name, tensor in part.inputs.items()}
    return stored | {key: array for name, output in outputs.items() for key, array in kept(name, output).items()}
