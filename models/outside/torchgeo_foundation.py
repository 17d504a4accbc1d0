"""torchgeo's foundation models that ask for more than an image; what they ask is read from the band contract and fixed.

=================== ================================================================================================
``dofa_*``          each band's wavelength
``panopticon_*``    each band's wavelength, or its polarisation for Sentinel-1
``croma_*``         12 bands of Sentinel-2 (cirrus left out), 2 of Sentinel-1, or the 2 and then the 12
``scalemae_*``      the ground sampling distance, the same for all bands
``copernicusfm_*``  each band's wavelength and width, which is known for Sentinel-2; place, time and area stay unknown
=================== ================================================================================================

Each gives one vector per image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.band_names import canonical_band
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.keymap import KeyMap

PLAIN = KeyMap(top=("state_dict", "model_state_dict", "model"))
"""What libraries write: the network's own names, perhaps one entry down."""
S2_WIDTHS_NM: Mapping[str, float] = {
    "coastal": 20, "blue": 65, "green": 35, "red": 30, "rededge1": 15, "rededge2": 15, "rededge3": 20, "nir": 115,
    "nir08": 20, "watervapour": 20, "cirrus": 30, "swir16": 90, "swir22": 180,
}  # fmt: skip
"""Widths of Sentinel-2's bands (nm) as its user handbook states them (ESA, 2015)."""
_PANOPTICON_SAR = {"VV": -1, "VH": -2, "HV": -3, "HH": -4}
"""Numbers of Panopticon's radar channels where the orbit is not given: transmitted V or H, then received."""


class ContractNet(nn.Module):
    """A network with what it asks beside the image: x (N, C, H, W) -> (N, dim) or logits.

    Attributes:
        net: the network that the checkpoint's names are of.
        optional: names that a pretraining file may lack; they stay as they were built, as the library itself leaves them.
        layout: how the names in a checkpoint become the network's.
    """

    def __init__(self, net: nn.Module, optional: tuple[str, ...] = (), layout: KeyMap = PLAIN) -> None:
        super().__init__()
        self.net, self.optional, self.layout = net, optional, layout

    def complete(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The checkpoint's tensors, and our own where optional ones are missing."""
        own = {k: v for k, v in self.net.state_dict().items() if k.startswith(self.optional) and k not in state}
        return state | own if self.optional else state

    def fix_constants(self) -> None:
        """Fixes what follows from the contract and the weights; to be called when the weights are in."""


class Dofa(ContractNet):
    def __init__(self, net: nn.Module, centres: list[float]) -> None:
        super().__init__(net, ("fc_norm.", "head."))
        self.micrometres = [nm / 1000 for nm in centres]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, self.micrometres)  # type: ignore[no-any-return]


class Panopticon(ContractNet):
    """Channel codes are computed once (:meth:`fix_constants`): torchgeo's code picks them by masks that depend on data."""

    codes: Tensor

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__(net.model)  # type: ignore[arg-type]
        radar = [_PANOPTICON_SAR.get(b.polarisation or "") for b in spec.bands]
        optical = iter(wavelengths(spec, [b.name for b, r in zip(spec.bands, radar, strict=True) if r is None]))
        numbers = [float(next(optical)) if r is None else float(r) for r in radar]
        self.register_buffer("channels", torch.tensor([numbers]), persistent=False)
        patches: Any = self.net.patch_embed.conv3d  # type: ignore[union-attr]
        patches.forward = _patches(patches.conv3d)

    @torch.no_grad()
    def fix_constants(self) -> None:
        fusion: Any = self.net.patch_embed.chnfus  # type: ignore[union-attr]
        fusion.chnemb = _Constant(fusion.chnemb(self.get_buffer("channels").clone()))

    def forward(self, x: Tensor) -> Tensor:
        channels = self.get_buffer("channels").expand(len(x), -1).clone()
        return self.net({"imgs": x, "chn_ids": channels})  # type: ignore[no-any-return]


def _patches(conv: nn.Conv3d) -> Callable[[Tensor], tuple[Tensor, int, int]]:
    """torchgeo's patchification, (N, C, H, W) -> (N, C, L, D), without its squeeze of an axis that is not 1 (ONNX refuses it)."""

    def forward(x: Tensor) -> tuple[Tensor, int, int]:
        y = conv(x.unsqueeze(1))
        height, width = y.shape[-2:]
        return y.flatten(-2).permute(0, 2, 3, 1), height, width

    return forward


class _Constant(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self, channels: Tensor) -> Tensor:
        return self.get_buffer("value").expand(len(channels), -1, -1)


class Croma(ContractNet):
    def __init__(self, net: nn.Module, radar: bool, optical: bool) -> None:
        super().__init__(net)
        self.radar, self.optical = radar, optical

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(
            x_sar=x[:, :2] if self.radar else None, x_optical=x[:, 2 * self.radar :] if self.optical else None
        )
        return found["joint_GAP" if self.radar and self.optical else "sar_GAP" if self.radar else "optical_GAP"]  # type: ignore[no-any-return]


class CopernicusFM(ContractNet):
    """What torchgeo's forward pass does where place, time and area are unknown, without its questions to values on the way.

    The kernel of its patches is made of wavelengths and widths by a small transformer; both are fixed, so it is made once
    (:meth:`fix_constants`). Wang et al. 2025, "Towards a Unified Copernicus Foundation Model for Earth Vision".
    """

    def __init__(self, net: nn.Module, centres: list[float], widths: list[float]) -> None:
        super().__init__(net, ("fc_norm.", "head."))
        self.centres, self.widths = centres, widths
        self.fix_constants()

    @torch.no_grad()
    def fix_constants(self) -> None:
        patches: Any = self.net.patch_embed_spectral
        codes = patches.spectrum_central_expansion(torch.tensor(self.centres), patches.hyper_dim)
        codes = codes + patches.spectrum_bandwidth_expansion(torch.tensor(self.widths), patches.hyper_dim)
        weight, bias = patches.weight_generator(patches.fclayer(codes))
        edge = patches.kernel_size
        kernel = weight.view(len(self.centres), edge, edge, patches.embed_dim).permute(3, 0, 1, 2)
        self.register_buffer("kernel", kernel.contiguous() * patches.scaler, persistent=False)
        self.register_buffer("shift", bias.reshape(patches.embed_dim) * patches.scaler, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        net: Any = self.net
        kernel = self.get_buffer("kernel")
        patches = F.conv2d(x, kernel, self.get_buffer("shift"), stride=kernel.shape[-1], padding=1)
        known = net.coord_fc(net.coord_token) + net.scale_fc(net.scale_token) + net.time_fc(net.time_token)
        places = net.pos_embed + known
        first = (net.cls_token + places[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat((first, patches.flatten(2).transpose(1, 2) + places[:, 1:]), 1)
        for block in net.blocks:
            tokens = block(tokens)
        pooled = net.fc_norm(tokens[:, 1:].mean(1)) if net.global_pool else net.norm(tokens)[:, 0]
        return net.forward_head(pooled)  # type: ignore[no-any-return]


def wavelengths(spec: InputSpec, names: list[str] | None = None) -> list[float]:
    """Centre wavelengths (nm) of all bands, or of those named.

    Raises:
        RequestError: a band has none.
    """
    bands = [b for b in spec.bands if names is None or b.name in names]
    without = [b.name for b in bands if b.wavelength_nm is None]
    if without:
        raise RequestError(f"input: band '{without[0]}' needs a wavelength_nm, which this network asks for")
    return [float(b.wavelength_nm or 0.0) for b in bands]


def distance_m(spec: InputSpec) -> float:
    """The ground sampling distance (m) of all bands.

    Raises:
        RequestError: it is not given, or differs between bands.
    """
    found = {b.gsd_m for b in spec.bands}
    if len(found) != 1 or None in found:
        raise RequestError(f"input: scalemae needs one gsd_m for all bands, not {sorted(map(str, found))}")
    return float(found.pop() or 0.0)


def _croma(make: Callable[..., nn.Module], spec: InputSpec, classes: int) -> nn.Module:
    radar, optical = spec.channels in (2, 14), spec.channels in (12, 14)
    if not (radar or optical):
        raise RequestError(
            f"croma takes 2 bands (radar), 12 (optical) or 14 (radar, then optical), not {spec.channels}"
        )
    kinds = [name for name, there in (("sar", radar), ("optical", optical)) if there]
    return Croma(make(weights=None, modalities=kinds, image_size=spec.tile), radar, optical)


def _scalemae(make: Callable[..., nn.Module], spec: InputSpec, classes: int) -> nn.Module:
    return make(weights=None, res=distance_m(spec), img_size=spec.tile, in_chans=spec.channels, num_classes=classes)


def _dofa(make: Callable[..., nn.Module], spec: InputSpec, classes: int) -> nn.Module:
    centres = wavelengths(spec)
    return Dofa(make(weights=None, img_size=spec.tile, num_classes=classes), centres)


def _panopticon(make: Callable[..., nn.Module], spec: InputSpec, classes: int) -> nn.Module:
    return Panopticon(make(weights=None, img_size=spec.tile), spec)


def _copernicusfm(make: Callable[..., nn.Module], spec: InputSpec, classes: int) -> nn.Module:
    names = [canonical_band(b.name, b.sensor) for b in spec.bands]
    unknown = [n for n in names if n not in S2_WIDTHS_NM]
    if unknown:
        raise RequestError(f"copernicusfm asks for widths of bands; known for Sentinel-2's, not for {unknown[0]}")
    centres, widths = wavelengths(spec), [S2_WIDTHS_NM[n] for n in names]
    return CopernicusFM(make(weights=None, img_size=spec.tile, num_classes=classes), centres, widths)


FAMILIES: dict[str, Callable[[Callable[..., nn.Module], InputSpec, int], nn.Module]] = {
    "dofa_": _dofa, "panopticon_": _panopticon, "croma_": _croma, "scalemae_": _scalemae, "copernicusfm_": _copernicusfm,
}  # fmt: skip
HEADLESS = ("panopticon_", "croma_")
"""They have no classifier of their own."""


def build(name: str, make: Callable[..., nn.Module], spec: InputSpec, classes: int) -> nn.Module | None:
    """The network around torchgeo's constructor ``make``; None where ``name`` is of no family here.

    Raises:
        RequestError: the contract lacks what the network asks, or classes are named for one without a classifier.
    """
    prefix = next((p for p in FAMILIES if name.startswith(p)), None)
    if prefix is None:
        return None
    if prefix in HEADLESS and classes:
        raise RequestError(f"torchgeo:{name} has no classifier; leave the classes out, it gives embeddings")
    return FAMILIES[prefix](make, spec, classes)
