"""terratorch's networks under a band contract: bare backbones, and what was fine-tuned with it.

terratorch needs Python 3.12; rsedge runs there too, both in one environment (docs/outside.md).

==================================== ===============================================================================
``terratorch:finetuned``             a Lightning checkpoint of a terratorch task; its own settings say what to build
``terratorch:prithvi_eo_*``          six bands of HLS, one or several dates; place and time stay unknown
``terratorch:terramind_*/S2L2A``     the modality the bands are of, several joined by ``+`` in the order of the bands
``terratorch:clay_v1_base``          each band's wavelength and the ground sampling distance; place and time stay unknown
==================================== ===============================================================================

Backbones give one vector per image, the mean of the last layer's tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.band_names import canonical_band
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.keymap import KeyMap
from rsedge.models.outside.torchgeo_foundation import ContractNet, distance_m, wavelengths
from rsedge.models.zoo import Task

FINETUNED = "finetuned"
HLS = ("blue", "green", "red", "nir08", "swir16", "swir22")
"""Prithvi's bands in the order of its patch embedding (its model card; NIR is the narrow one)."""
_PRITHVI = KeyMap(strip=("encoder.",), ignored=(r"decoder", r"mask_token$", r"pos_embed$"))
_TERRAMIND = KeyMap(ignored=(r"decoder", r"mask_token$", r"cls_token$", r"encoder_embeddings\.[^.]+\.pos_emb$"))
_CLAY = KeyMap(
    top=("state_dict",),
    rename={r"model\.encoder\.": "clay_encoder."},
    ignored=(r"model\.(?!encoder\.)", r"(?!model\.|clay_encoder\.)"),
)
_TASK = KeyMap(top=("state_dict",), strip=("model.",), ignored=(r"criterion", r"(model\.)?aux_heads\."))

_TASKS = {
    "SemanticSegmentationTask": "segmentation",
    "PixelwiseRegressionTask": "regression",
    "ClassificationTask": "classification",
    "MultiLabelClassificationTask": "classification",
    "ScalarRegressionTask": "scalar_regression",
}
"""terratorch's tasks that are taken, and what its factories call them."""
_DENSE = ("segmentation", "regression")
_UNSAID = {"segmentation": "segmentation", "classification": "classification", "regression": "scalar_regression"}
"""A recipe's task -> the factories' name, where a script wrote the checkpoint and did not say."""


class Tokens(ContractNet):
    """A backbone that gives tokens (N, L, dim) per layer -> the mean of the last layer's, (N, dim).

    Attributes:
        first: tokens at the start that stand for no patch and are left out.
    """

    def __init__(self, net: nn.Module, optional: tuple[str, ...], layout: KeyMap, first: int = 0) -> None:
        super().__init__(net, optional, layout)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        return self.net(_dates_third(x))[-1][:, self.first :].mean(1)  # type: ignore[no-any-return]


def _dates_third(x: Tensor) -> Tensor:
    """Several dates, (N, T, C, H, W) in a band contract, are (N, C, T, H, W) in terratorch."""
    return x.transpose(1, 2) if x.ndim == 5 else x


class Modalities(nn.Module):
    """One image (N, C, H, W) of all bands -> the modalities that they are of, by name."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = dict(channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.channels, x.split(list(self.channels.values()), 1), strict=True))


class Joined(Tokens):
    """A backbone of several modalities, whose bands stand one after the other in the contract."""

    def __init__(self, net: nn.Module, split: Modalities, optional: tuple[str, ...], layout: KeyMap) -> None:
        super().__init__(net, optional, layout)
        self.split = split

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.split(x))[-1].mean(1)  # type: ignore[no-any-return]


class Clay(ContractNet):
    """The kernel of its patches is made of the wavelengths by a small transformer, their places are made of the distance: both
    are fixed, so both are made once (:meth:`fix_constants`). Its token of the whole image is left out of the mean."""

    def __init__(self, net: nn.Module, micrometres: list[float], distance: float, layout: KeyMap) -> None:
        super().__init__(net, layout=layout)
        self.micrometres, self.distance = micrometres, distance

    @torch.no_grad()
    def fix_constants(self) -> None:
        encoder: Any = self.net.clay_encoder
        patches, edge = encoder.patch_embedding, encoder.patch_size
        one = torch.zeros(1, len(self.micrometres), edge, edge)
        waves = torch.tensor(self.micrometres)
        shift = patches(one, waves)[0]
        # Linear in the pixels: one bright pixel after the other gives the kernel.
        pixels = torch.eye(one.numel()).view(-1, *one.shape[1:])
        kernel = (patches(pixels, waves)[0] - shift)[:, 0].T.reshape(-1, *one.shape[1:])
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)
        self.register_buffer("shift", shift[0, 0], persistent=False)
        unknown = torch.zeros(1, 4)
        places = encoder.add_encodings(
            torch.zeros(1, encoder.num_patches, encoder.dim), unknown, unknown, self.distance
        )
        self.register_buffer("places", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        encoder: Any = self.net.clay_encoder
        tokens = F.conv2d(x, self.get_buffer("kernel"), self.get_buffer("shift"), stride=encoder.patch_size)
        placed = tokens.flatten(2).transpose(1, 2) + self.get_buffer("places")
        first = encoder.cls_token.expand(len(x), -1, -1)
        return encoder.transformer(torch.cat((first, placed), 1))[-1][:, 1:].mean(1)  # type: ignore[no-any-return]


class Outputs(ContractNet):
    """A fine-tuned task's network -> its outputs alone: (N, K), or (N, K, H, W)."""

    def __init__(self, net: nn.Module, modalities: Modalities | None, dense: bool) -> None:
        super().__init__(net, layout=_TASK)
        self.modalities, self.dense = modalities, dense

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(_dates_third(x) if self.modalities is None else self.modalities(x)).output
        # One channel comes without its axis.
        return found.unsqueeze(1) if self.dense and found.ndim == 3 else found


def build(name: str, spec: InputSpec) -> ContractNet:
    """A bare backbone with random weights, around which the contract stands.

    Raises:
        RequestError: unknown name, or bands that do not fit it.
        ImportError: terratorch is not installed.
    """
    from terratorch import BACKBONE_REGISTRY  # type: ignore[import-not-found,unused-ignore]

    kind = name.partition("/")[0]
    if kind.startswith("terramind"):
        return _terramind(BACKBONE_REGISTRY, name, spec)
    if kind == "clay_v1_base":
        return _clay(spec)
    if not kind.startswith("prithvi_eo") or kind not in BACKBONE_REGISTRY:
        known = sorted(n for n in BACKBONE_REGISTRY if n.startswith(("terratorch_prithvi_eo", "terratorch_terramind")))
        names = ", ".join([n.removeprefix("terratorch_") for n in known if "tokenizer" not in n and "tim" not in n])
        raise RequestError(f"terratorch has no backbone '{kind}' here; taken: {FINETUNED}, clay_v1_base, {names}")
    found = tuple(canonical_band(b.name, b.sensor) for b in spec.bands)
    if found != HLS:
        raise RequestError(f"terratorch:{kind} takes the bands {', '.join(HLS)}, not {', '.join(found)}")
    net = BACKBONE_REGISTRY.build(kind, pretrained=False, num_frames=spec.frames, img_size=spec.tile)
    return Tokens(net, ("pos_embed",), _PRITHVI, first=1)


def _terramind(registry: Any, name: str, spec: InputSpec) -> ContractNet:
    kind, _, modalities = name.partition("/")
    if kind not in registry or kind.endswith("_tim"):
        raise RequestError(f"terratorch has no backbone '{kind}' that takes images alone")
    if not modalities:
        raise RequestError(
            f"terratorch:{kind}: name what the bands are of, e.g. terratorch:{kind}/S2L2A or {kind}/S1GRD+S2L2A"
        )
    names = modalities.split("+")
    try:
        net = registry.build(kind, pretrained=False, modalities=names, img_size=spec.tile)
    except NotImplementedError as error:
        raise RequestError(f"terratorch:{name}: {error}") from error
    split = _channels(net, names, spec)
    own = "|".join(map(re.escape, net.encoder_embeddings))
    others = KeyMap(ignored=(*_TERRAMIND.ignored, rf"encoder_embeddings\.(?!({own})\.)"))
    fixed = tuple(f"encoder_embeddings.{m}.pos_emb" for m in net.encoder_embeddings)
    return Joined(net, split, fixed, others)


def _channels(encoder: Any, names: list[str], spec: InputSpec) -> Modalities:
    """How the contract's bands divide into modalities.

    Raises:
        RequestError: they do not add up, or a modality is no image.
    """
    embeddings = {n: encoder.encoder_embeddings[encoder.mod_name_mapping[n]] for n in names}
    counts = {n: getattr(e, "num_channels", 0) for n, e in embeddings.items()}
    if not all(counts.values()):
        raise RequestError(f"terratorch: modality '{min(counts, key=lambda n: counts[n])}' is no image of bands")
    if sum(counts.values()) != spec.channels:
        wanted = " + ".join(f"{n} ({c})" for n, c in counts.items())
        raise RequestError(f"terratorch: {wanted} takes {sum(counts.values())} bands, the contract has {spec.channels}")
    return Modalities(counts)


def _clay(spec: InputSpec) -> ContractNet:
    from terratorch.models.backbones.clay_v1.embedder import (  # type: ignore[import-not-found,unused-ignore]
        Embedder,
    )

    micrometres, distance = [nm / 1000 for nm in wavelengths(spec)], distance_m(spec)
    return Clay(Embedder(img_size=spec.tile, bands=list(spec.band_names)), micrometres, distance, _CLAY)


def fine_tuned(content: Any, where: str, spec: InputSpec, task: Task | None) -> ContractNet:
    """The network of a terratorch task, as the settings beside the checkpoint's weights describe it; nothing is downloaded.

    Args:
        content: what lies in the checkpoint.
        task: what it does, for checkpoints that do not say.

    Raises:
        RequestError: the checkpoint has no such settings, or terratorch cannot build from them.
        ImportError: terratorch is not installed.
    """
    from terratorch.registry import MODEL_FACTORY_REGISTRY  # type: ignore[import-not-found,unused-ignore]

    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(settings, Mapping) or not settings.get("model_factory") or not settings.get("model_args"):
        raise RequestError(
            f"{where}: no hyper_parameters with model_factory and model_args; terratorch:{FINETUNED} takes the .ckpt that "
            "a terratorch task wrote"
        )
    kind = _task_name(settings, where, task)
    arguments = {k: v for k, v in settings["model_args"].items() if not k.endswith("ckpt_path")}
    arguments |= {k: False for k in arguments if k.endswith("pretrained")}
    try:
        net = MODEL_FACTORY_REGISTRY.build(settings["model_factory"]).build_model(task=kind, **arguments)
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise RequestError(f"{where}: terratorch cannot build what its settings say: {error}") from error
    names = list(getattr(net.encoder, "modalities", ()))
    return Outputs(net, _channels(net.encoder, names, spec) if len(names) > 1 else None, kind in _DENSE)


def _task_name(settings: Mapping[str, Any], where: str, task: Task | None) -> str:
    """The factories' name of the task; terratorch's command line notes the class, a script does not."""
    name = str(settings.get("_class_path", "")).rpartition(".")[2]
    if name in _TASKS:
        return _TASKS[name]
    if name:
        raise RequestError(f"{where}: {name} is not taken here; taken: {', '.join(_TASKS)}")
    if task not in _UNSAID:
        raise RequestError(f"{where}: does not say its task; set teacher.task to one of {', '.join(_UNSAID)}")
    return _UNSAID[task]
