"""Teachers that other libraries build, by one loader each: ``<loader>:<name>`` (:data:`rsedge.models.zoo.LOADER_NAMES`).

:mod:`rsedge.models.outside.torchgeo_foundation` knows torchgeo's models that take more than an image,
:mod:`rsedge.models.outside.terratorch`
terratorch's, :mod:`rsedge.models.black_box` ONNX files, which have no gradients and no taps.

The band contract is given by the caller: no library knows what a user's bands are.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsedge.data.bands import InputSpec
from rsedge.data.boxes.candidates import width_of
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_of
from rsedge.models.answers import HALF_SLACK, Answer, Answering, last_function, named_classes, over_classes, seen_in
from rsedge.models.black_box import BlackBox
from rsedge.models.checkpoint import load_strict, read_checkpoint, tensors_in
from rsedge.models.outside import terratorch as outside_terra
from rsedge.models.outside.entries import giving_logits
from rsedge.models.outside.smp import smp_network
from rsedge.models.outside.timm import timm_network
from rsedge.models.outside.torchgeo import torchgeo_network
from rsedge.models.outside.torchgeo_foundation import ContractNet, Croma, Panopticon
from rsedge.models.outside.torchvision import torchvision_network
from rsedge.models.outside.transformers import transformers_network
from rsedge.models.structure import tensors_digest
from rsedge.models.wrappings import check_class_names, unwrapped
from rsedge.models.zoo import FILE_LOADERS, MEMORY, Task, TeacherRow

PROBES = 2
"""Inputs on which a network's outputs are looked at."""
AS_IT_IS: tuple[Task, ...] = ("regression", "embedding", "features", "super-resolution")
"""Tasks whose outputs are no scores of classes."""
_TERRATORCH_WAY = """terratorch is not installed: it needs Python 3.12. Install rsedge and terratorch there, in one environment,
and run the recipe with its rsedge (docs/outside.md):
  python3.12 -m venv terra && terra/bin/pip install 'rsedge[all,terratorch]'"""


def load_outside(
    name: str,
    spec: InputSpec,
    classes: Sequence[str] = (),
    checkpoint: str | Path | None = None,
    task: Task | None = None,
    arch: Mapping[str, Any] | None = None,
    entry: str | None = None,
) -> tuple[nn.Module, TeacherRow]:
    """A network of another library and a row that describes it; its ``arch`` are the arguments of :func:`rebuild_outside`.

    Args:
        name: ``<loader>:<name>``.
        spec: the band contract; its bands are the network's input channels.
        classes: names of the outputs; none for features (timm, torchgeo).
        checkpoint: weights in the library's own layout; ``transformers`` and ``onnx`` bring theirs.
        task: what it does; by default segmentation for dense outputs, classification with classes, else embedding.
        arch: arguments of the network's constructor.
        entry: which weights of the checkpoint, where it holds several.

    What was stripped of the checkpoint stands in the row's notes.

    Raises:
        RequestError: unknown loader or name, weights missing or not fitting, or an output that does not fit ``classes``.
        MissingCapability: the library is not installed.
    """
    loader = _loader_of(name)
    if loader in FILE_LOADERS and checkpoint is not None:
        raise RequestError(f"'{name}' brings its own weights; leave the checkpoint out")
    if loader == "terratorch" and util.find_spec("terratorch") is None:
        raise MissingCapability(f"{name}: {_TERRATORCH_WAY}")
    if loader not in FILE_LOADERS and checkpoint is None:
        raise RequestError(f"'{name}' needs a checkpoint: nothing is downloaded here")
    try:
        if name == f"terratorch:{outside_terra.FINETUNED}":
            net: nn.Module = outside_terra.fine_tuned(read_checkpoint(checkpoint or ""), str(checkpoint), spec, task)
        else:
            net = _built(name, spec, classes, arch or {})
    except ImportError as error:
        raise MissingCapability(f"{loader} is not installed ({error}); install it with pip") from error
    notes = (
        ()
        if checkpoint is None
        else _fill(net, checkpoint, spec, classes, entry, lambda: _head(name, spec, classes, arch or {}))
    )
    net, named = _answering(net.eval().requires_grad_(False), name, spec, tuple(classes), task)
    made = {"name": name, "input": spec.model_dump(mode="json"), "classes": list(classes), "arch": dict(arch or {})}
    row = _row(name, loader, net, spec, named, task, made | _answer_of(net))
    return net, row.model_copy(update={"notes": notes})


def _loader_of(name: str) -> str:
    loader, _, what = name.partition(":")
    if loader == MEMORY:
        raise RequestError(
            f"'{name}' is a module in memory, which a file cannot hold: hand it over in Python, "
            "rsedge.run(recipe, teacher=module)"
        )
    if loader not in LOADERS or not what:
        raise RequestError(f"'{name}' names no loader; known: {', '.join(f'{key}:' for key in LOADERS)}")
    return loader


def _built(name: str, spec: InputSpec, classes: Sequence[str], arch: Mapping[str, Any]) -> nn.Module:
    """A network as its library builds it.

    Raises:
        RequestError: there is no such network, or it does not take the arguments under ``arch``.
    """
    loader, _, what = name.partition(":")
    try:
        return LOADERS[loader](what, spec, len(classes), arch)
    except (TypeError, ValueError, KeyError, AssertionError, AttributeError) as error:
        if not arch:
            raise
        raise RequestError(f"teacher.arch: '{name}' cannot be built with {dict(arch)}: {_first_line(error)}") from error


def _answer_of(net: nn.Module) -> dict[str, Any]:
    """What stands between a network and its logits, JSON-able; empty where nothing does."""
    return {"answer": vars(net.answer).copy()} if isinstance(net, Answering) else {}


def rebuild_outside(
    name: str,
    input: Mapping[str, Any],
    classes: Sequence[str],
    arch: Mapping[str, Any],
    answer: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The network of another library that :func:`load_outside` described, without its weights.

    Raises:
        RequestError: it was a module in memory, or its checkpoint said how to build it.
        MissingCapability: the library is not installed.
    """
    loader = _loader_of(name)
    if name == f"terratorch:{outside_terra.FINETUNED}":
        raise RequestError(f"'{name}' is built as its checkpoint says; load it by its recipe")
    try:
        net = _built(name, InputSpec.model_validate(input), classes, arch)
    except ImportError as error:
        raise MissingCapability(f"{loader} is not installed ({error}); install it with pip") from error
    return net.eval() if answer is None else Answering(net, Answer(**answer)).eval()


def in_memory(
    module: nn.Module, spec: InputSpec, classes: Sequence[str] = (), task: Task | None = None, name: str | None = None
) -> tuple[nn.Module, TeacherRow]:
    """A copy of somebody's own module as a teacher, on the CPU, and a row that describes it; the module stays as it is.

    Args:
        name: what it is called in reports; its class when not given.

    Raises:
        RequestError: it cannot be copied, is TorchScript, cannot run on the contract's input or gives something else than
            ``classes`` say.
    """
    name = f"{MEMORY}:{name or type(unwrapped_module(module)).__name__}"
    net = _copied(module, name, spec).requires_grad_(False)
    net, named = _answering(net, name, spec, tuple(classes), task)
    arch = {
        "name": name,
        "input": spec.model_dump(mode="json"),
        "classes": list(classes),
        "arch": {"code": _behaviour(net, spec)},
    }
    return net, _row(name, MEMORY, net, spec, named, task, arch)


def own_student(module: nn.Module, spec: InputSpec) -> tuple[nn.Module, str]:
    """A copy of somebody's own module to be trained, on the CPU, and a hash of its weights and of what it does.

    Raises:
        RequestError: it cannot be copied, is TorchScript, or cannot run on the contract's input.
    """
    name = f"{MEMORY}:{type(unwrapped_module(module)).__name__}"
    net = _copied(module, name, spec)
    # What it gives while it learns may be more; batches of two, for normalisation.
    learning = _probe_forward(copy.deepcopy(net).train(), name, torch.zeros(2, *spec.shape))
    net = giving_logits(net, learning, f"{name} in training").eval()
    return net.requires_grad_(True), sha256_of([tensors_digest(net), _behaviour(net, spec)])


def _copied(module: nn.Module, name: str, spec: InputSpec) -> nn.Module:
    """A copy on the CPU, in evaluation mode, that gives a tensor."""
    if not isinstance(unwrapped_module(module), nn.Module):
        raise RequestError(
            f"'{name}' is no torch.nn.Module; hand over the network itself, an object such as Net(), not its class or a function"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise RequestError(
            f"'{name}' is TorchScript, a compiled program, which nothing here prunes or exports; give the module that it was "
            "made of, or its ONNX file as `onnx:`"
        )
    try:
        net = copy.deepcopy(unwrapped_module(module)).cpu().float().eval()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise RequestError(
            f"'{name}' cannot be copied ({_first_line(error)}); give a module that copy.deepcopy takes"
        ) from error
    return giving_logits(net, _probe_forward(net, name, torch.zeros(1, *spec.shape)), name).eval()


def unwrapped_module(module: nn.Module) -> nn.Module:
    """What torch.compile or data-parallel training has wrapped."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _behaviour(net: nn.Module, spec: InputSpec) -> str:
    """Hash of what a module is made of and gives: its weights do not tell when its code was changed."""
    x = torch.randn(1, *spec.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        given = net(x)
    digest = hashlib.sha256(repr(net).encode())
    digest.update(given.float().cpu().numpy().tobytes() if isinstance(given, Tensor) else b"")
    return digest.hexdigest()


def _answering(
    net: nn.Module, name: str, spec: InputSpec, classes: tuple[str, ...], task: Task | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """The network with logits of every class for outputs, and the names of all classes (:mod:`rsedge.models.answers`).

    Raises:
        RequestError: it cannot run on the contract's input, gives class numbers, or one channel for more than two names.
    """
    found = _probe_forward(net, name, torch.zeros(1, *spec.shape))
    if not classes or not isinstance(found, Tensor) or found.ndim not in (2, 4) or task in AS_IT_IS:
        return net, classes
    probe = torch.randn(PROBES, *spec.shape, generator=torch.Generator().manual_seed(0))
    if isinstance(net, BlackBox):
        raw, inside = net.raw(probe), net.answer.inside
    else:
        raw, inside = _probe_forward(net, name, probe), last_function(net)
    values = raw.float().numpy()
    seen = seen_in(values, name)
    # The last module by name need not be the last to run: what it would give must be what came out.
    likely = raw.min() >= 0 and raw.max() <= 1 and (inside != "softmax" or over_classes(values, HALF_SLACK))
    function = inside if inside != "logits" and likely else seen
    answer = Answer(function, raw.ndim == 4 and raw.shape[1] == 1)
    if isinstance(net, BlackBox):
        net.answer = answer
    elif answer.changes:
        net = Answering(net, answer).eval()
    return net, named_classes(classes, answer, name)


def _probe_forward(net: nn.Module, name: str, x: Tensor) -> Any:
    """What a network gives for ``x``.

    Raises:
        RequestError: it raises; the message says the input and what a network of a fixed size asks for.
    """
    try:
        with torch.inference_mode():
            return net(x)
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        why = _first_line(error)
        raise RequestError(
            f"'{name}' cannot run on its contract's input {tuple(x.shape)}: {why}. Set teacher.input (tile, bands, layout) to "
            "what the network was made for"
        ) from error


def _fill(
    net: nn.Module,
    checkpoint: str | Path,
    spec: InputSpec,
    classes: Sequence[str],
    entry: str | None,
    head: Callable[[], Collection[str]],
) -> tuple[str, ...]:
    """Loads a checkpoint; gives what was stripped of it.

    Raises:
        RequestError: it does not fit, holds several sets of weights, or the classes in another order.
    """
    content = read_checkpoint(checkpoint)
    notes = check_class_names(content, classes, checkpoint)
    if not isinstance(net, ContractNet):
        found = unwrapped(content, net, checkpoint, entry, lambda own, state: _advice(own, state, spec, classes), head)
        load_strict(net, found.tensors, checkpoint)
        return (*(f"{Path(checkpoint).name}: {words}" for words in found.notes), *notes)
    if entry is not None:
        raise RequestError("teacher.entry: this network's checkpoints have a layout of their own; leave entry out")
    if isinstance(net, Croma) and isinstance(content, dict) and isinstance(content.get("s2_encoder"), dict):
        # The authors' file: one state dict per part, those of unused parts too.
        own = {k.partition(".")[0] for k in net.net.state_dict()}
        content = {f"{p}.{k}": v for p, part in content.items() if p in own for k, v in part.items()}
        content["attn_bias"] = net.net.get_buffer("attn_bias")
    state = net.complete(net.layout.apply(tensors_in(content, net.layout.top, checkpoint)))
    if isinstance(net, Panopticon):
        state.pop("mask_token", None)
    load_strict(net.net, state, checkpoint)
    net.fix_constants()
    return notes


def _head(name: str, spec: InputSpec, classes: Sequence[str], arch: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that a network would have with classes; without any there is no head to fill."""
    return [] if classes else list(_built(name, spec, ("one",), arch).state_dict())


def _advice(
    own: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], spec: InputSpec, classes: Sequence[str]
) -> str:
    """What to do about tensors of another shape: a head of another number of classes, positions of another image size."""
    wrong = {n: (tuple(state[n].shape), shape) for n, shape in own.items() if n in state and state[n].shape != shape}
    if not wrong:
        return ""
    heads = {found[0] for found, shape in wrong.values() if found[1:] == shape[1:] and shape[0] == len(classes)}
    if len(heads) == 1 and all(found[1:] == shape[1:] for found, shape in wrong.values()):
        return (
            f". Its head gives {heads.pop()} outputs, and {len(classes)} classes are named: name all of them under "
            "teacher.classes, in its order"
        )
    for name, (found, shape) in wrong.items():
        if (
            "pos_embed" in name
            and len(found) == len(shape) == 3
            and (size := _image_size(found[1], shape[1], spec.tile))
        ):
            return f". Its positions are those of images of {size} pixels: set teacher.input.tile to {size}"
    return ""


def _image_size(tokens: int, own: int, tile: int) -> int | None:
    """Edge (pixels) of the images that so many tokens are of, where ``own`` are of ``tile`` pixels; some stand for no patch."""
    for extra in (0, 1, 2, 5):
        edges = [math.isqrt(count - extra) if count > extra else 0 for count in (tokens, own)]
        if all(edge and edge**2 == count - extra for edge, count in zip(edges, (tokens, own), strict=True)):
            return tile * edges[0] // edges[1]
    return None


def _shape_hint(found: Tensor, spec: InputSpec, classes: int) -> str:
    """What to do about outputs of a map whose axes stand otherwise."""
    if not spec.is_image or found.shape[1:3] != spec.shape[-2:]:
        return ""
    if found.ndim == 3:
        return "; a map keeps its axis of classes, even of one: export it as (N, K, H, W)"
    return "; its classes come last: export it with classes first, (N, K, H, W)" if found.shape[3] == classes else ""


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _row(
    name: str,
    loader: str,
    net: nn.Module,
    spec: InputSpec,
    classes: tuple[str, ...],
    task: Task | None,
    arch: dict[str, Any],
) -> TeacherRow:
    found = _probe_forward(net, name, torch.zeros(1, *spec.shape))
    if not isinstance(found, Tensor) or found.ndim not in (2, 3, 4):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise RequestError(f"'{name}' gives {shape}; a teacher gives (N, K), (N, K, H, W) or candidates (N, A, 5 + K)")
    outputs = _box_classes(found.shape[2], len(classes)) if found.ndim == 3 else found.shape[1]
    if (found.ndim == 3) != (task == "detection") and (found.ndim == 3 or task == "detection"):
        raise RequestError(
            f"'{name}' gives {tuple(found.shape)}; detectors (task: detection) give candidates (N, A, 5 + K), of turned boxes "
            "(N, A, 5 + K + 2)"
            f"{_shape_hint(found, spec, len(classes))}"
        )
    finer = 1
    stride = _stride(name, found, spec) if task == "features" else 1
    if task == "super-resolution":
        finer, classes = _finer(name, found, spec), classes or spec.band_names
    if classes and outputs != len(classes):
        beside = "; candidates have 5 columns beside the classes, those of turned boxes 7"
        hint = beside if found.ndim == 3 else _shape_hint(found, spec, len(classes))
        raise RequestError(f"'{name}' gives {outputs} outputs, but {len(classes)} classes are named{hint}")
    if (
        task not in ("super-resolution", "features")
        and classes
        and found.ndim == 4
        and spec.is_image
        and found.shape[2:] != spec.shape[-2:]
    ):
        raise RequestError(
            f"'{name}' gives maps of {found.shape[2]}x{found.shape[3]} for its tile of {spec.tile}; export it with a resize to the "
            "tile's size at its end"
        )
    usual: Task = "segmentation" if found.ndim == 4 else "classification" if classes else "embedding"
    if not classes and (task or usual) in ("segmentation", "classification", "detection"):
        raise RequestError(f"'{name}' gives {outputs} outputs; name them under teacher.classes")
    return TeacherRow(
        name="outside",
        title=name,
        family=loader,
        task=task or usual,
        params=max(1, weight_count(net)),
        input=spec,
        arch=arch,
        classes=classes,
        finer=finer,
        stride=stride,
        licence="that of the weights, which you bring",
        source=name,
        published="weights",
    )


def _box_classes(columns: int, named: int) -> int:
    """Classes of candidates; those of turned boxes have columns more."""
    return columns - width_of(0, columns == width_of(named, True))


def _finer(name: str, found: Tensor, spec: InputSpec) -> int:
    """How many times finer than the tile the grid of an image is.

    Raises:
        RequestError: it is no image, or no whole multiple of the tile.
    """
    finer = found.shape[2] // spec.tile if found.ndim == 4 else 0
    if spec.layout != "CHW" or found.ndim != 4 or finer < 1 or tuple(found.shape[2:]) != (finer * spec.tile,) * 2:
        raise RequestError(
            f"'{name}' gives {tuple(found.shape)} for its input {spec.shape}; super-resolution gives an image (N, K, H, W) "
            f"whose edges are whole multiples of the tile's ({spec.tile}); export it so, or set teacher.input.tile"
        )
    return finer


def _stride(name: str, found: Tensor, spec: InputSpec) -> int:
    """How many pixels of the tile one place of a map of features is wide.

    Raises:
        RequestError: it is no map, or the tile no whole number of its places.
    """
    if not spec.is_image or found.ndim != 4 or found.shape[2] != found.shape[3] or spec.tile % found.shape[2]:
        raise RequestError(
            f"'{name}' gives {tuple(found.shape)} for its input {spec.shape}; task features is for maps (N, D, h, w) of which the "
            "tile is a whole number of places; for one of its inner maps name a feature: NAME#FEATURE"
        )
    return int(spec.tile // found.shape[2])


def weight_count(net: nn.Module) -> int:
    """Number of parameters; of a black box, the weights in its file."""
    return net.weights if isinstance(net, BlackBox) else sum(p.numel() for p in net.parameters())


def _as_it_is(
    loader: str, build: Callable[[str, InputSpec], nn.Module]
) -> Callable[[str, InputSpec, int, Mapping[str, Any]], nn.Module]:
    """A builder of networks whose own files or names say all of them."""

    def built(name: str, spec: InputSpec, classes: int, arch: Mapping[str, Any]) -> nn.Module:
        if arch:
            raise RequestError(f"teacher.arch: '{loader}:{name}' takes none here; leave it out")
        return build(name, spec)

    return built


LOADERS: dict[str, Callable[[str, InputSpec, int, Mapping[str, Any]], nn.Module]] = {
    "timm": timm_network,
    "torchvision": torchvision_network,
    "torchgeo": torchgeo_network,
    "terratorch": _as_it_is("terratorch", outside_terra.build),
    "smp": smp_network,
    "transformers": _as_it_is("transformers", transformers_network),
    "onnx": _as_it_is("onnx", BlackBox),
}
