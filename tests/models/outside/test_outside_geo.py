"""torchgeo's foundation models with what they ask read from the band contract; terratorch says where it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from rsedge.data.band_names import WAVELENGTHS_NM
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.export.onnx.writing import trace
from rsedge.models.outside import torchgeo_foundation as outside_geo
from rsedge.models.outside.loading import load_outside

geo = pytest.importorskip("torchgeo.models")
SMALL: dict[str, dict[str, Any]] = {
    "dofa_": {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 16},
    "croma_": {"encoder_dim": 32, "encoder_depth": 2},
    "scalemae_": {"embed_dim": 32, "depth": 1, "num_heads": 2, "patch_size": 16},
    "copernicusfm_": {"embed_dim": 32, "depth": 1, "num_heads": 2, "hyper_dim": 32},
    "panopticon_": {"attn_dim": 48},
}
CLASSES = {
    "dofa_": geo.DOFA, "croma_": geo.CROMA, "scalemae_": geo.ScaleMAE, "copernicusfm_": geo.CopernicusFM,
    "panopticon_": geo.Panopticon,
}  # fmt: skip
OPTICAL = ("blue", "green", "red", "nir")


def contract(*names: str, tile: int = 64, gsd: float | None = None) -> InputSpec:
    bands = [
        BandSpec(name=n, polarisation=n, gsd_m=gsd) if n in ("VV", "VH")  # type: ignore[arg-type]
        else BandSpec(name=n, wavelength_nm=WAVELENGTHS_NM.get(n), gsd_m=gsd)
        for n in names
    ]  # fmt: skip
    return InputSpec(bands=tuple(bands), tile=tile)


def maker(prefix: str) -> Callable[..., nn.Module]:
    def make(weights: None = None, **options: Any) -> nn.Module:
        torch.manual_seed(0)
        net: nn.Module = CLASSES[prefix](**{**options, **SMALL[prefix]})
        with torch.no_grad():
            for parameter in net.parameters():  # tokens and positions start at 0
                parameter.add_(torch.randn_like(parameter) * 0.02)
        return net

    return make


def built(prefix: str, spec: InputSpec, classes: int = 0) -> Any:
    net = outside_geo.build(f"{prefix}x", maker(prefix), spec, classes)
    assert net is not None
    if isinstance(net, outside_geo.ContractNet):
        net.fix_constants()
    return net.eval()


def same(net: nn.Module, x: Tensor, expected: Tensor, folder: Path) -> None:
    """Equal in torch, and as an ONNX graph."""
    with torch.no_grad():
        found = net(x)
    assert torch.allclose(found, expected, atol=1e-6) and found.ndim == 2
    model = trace(net, (x,), ("x",), ("y",))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"x": x.numpy()})[0] - expected.numpy()).max() < 1e-4


@torch.no_grad()
def test_dofa_gets_wavelengths_in_micrometres(tmp_path: Path) -> None:
    net, x = built("dofa_", contract(*OPTICAL)), torch.randn(1, 4, 64, 64)
    same(net, x, net.net(x, [0.49, 0.56, 0.665, 0.842]), tmp_path)
    with pytest.raises(RequestError, match="band 'VV' needs a wavelength_nm"):
        built("dofa_", contract("VV"))


@torch.no_grad()
def test_scale_mae_gets_the_ground_sampling_distance(tmp_path: Path) -> None:
    net, x = built("scalemae_", contract("red", "green", "blue", gsd=3.0)), torch.randn(1, 3, 64, 64)
    assert net.res == 3.0
    same(net, x, net(x), tmp_path)
    assert not torch.equal(net(x), built("scalemae_", contract("red", "green", "blue", gsd=6.0))(x))
    with pytest.raises(RequestError, match="one gsd_m for all bands"):
        built("scalemae_", contract("red", "green", "blue"))


@torch.no_grad()
@pytest.mark.parametrize(
    ("count", "kind"), [(2, "sar"), pytest.param(12, "optical", marks=pytest.mark.slow), (14, "joint")]
)
def test_croma_takes_radar_optical_or_both(count: int, kind: str, tmp_path: Path) -> None:
    net, x = built("croma_", contract(*(f"b{i}x" for i in range(count)))), torch.randn(1, count, 64, 64)
    radar, optical = (x[:, :2] if count != 12 else None), (x[:, -12:] if count != 2 else None)
    same(net, x, net.net(radar, optical)[f"{kind}_GAP"], tmp_path)
    with pytest.raises(RequestError, match=r"2 bands \(radar\), 12 \(optical\) or 14"):
        built("croma_", contract("red"))
    with pytest.raises(RequestError, match="has no classifier"):
        built("croma_", contract(*(f"b{i}x" for i in range(12))), classes=3)


@torch.no_grad()
def test_copernicus_fm_gets_centres_and_widths_and_nothing_else(tmp_path: Path) -> None:
    net, x = built("copernicusfm_", contract(*OPTICAL)), torch.randn(1, 4, 64, 64)
    unknown = torch.full((1, 4), math.nan)
    same(net, x, net.net(x, unknown, [490.0, 560.0, 665.0, 842.0], [65.0, 35.0, 30.0, 115.0]), tmp_path)
    before = net(x)
    net.net.patch_embed_spectral.fclayer.w1.weight.add_(0.1)
    assert torch.equal(net(x), before)
    net.fix_constants()
    expected = net.net(x, unknown, [490.0, 560.0, 665.0, 842.0], [65.0, 35.0, 30.0, 115.0])
    assert torch.allclose(net(x), expected, atol=1e-6) and not torch.allclose(net(x), before)
    with pytest.raises(RequestError, match="known for Sentinel-2's, not for thermal"):
        outside_geo.build("copernicusfm_x", maker("copernicusfm_"), thermal(), 0)


def thermal() -> InputSpec:
    return InputSpec(bands=(BandSpec(name="thermal", wavelength_nm=10900),), tile=64)


@pytest.mark.slow  # its body is always a ViT-B
@torch.no_grad()
def test_panopticon_gets_wavelengths_and_polarisations(tmp_path: Path) -> None:
    spec = contract("blue", "VH", "red", tile=56)
    fresh: Any = maker("panopticon_")(img_size=56).eval()
    x = torch.randn(1, 3, 56, 56)
    expected = fresh({"imgs": x.clone(), "chn_ids": torch.tensor([[490.0, -2.0, 665.0]])})
    same(built("panopticon_", spec), x, expected, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bands", "tile"),
    [
        ("dofa_base_patch16_224", OPTICAL, 224),
        ("croma_base", tuple(f"b{i}x" for i in range(12)), 120),
        ("panopticon_vitb14", OPTICAL, 224),
        ("copernicusfm_base", OPTICAL, 224),
        ("vit_small_patch16_224", tuple(f"b{i}x" for i in range(13)), 224),
        ("resnet50", tuple(f"b{i}x" for i in range(13)), 224),
        ("scalemae_large_patch16", ("red", "green", "blue"), 224),
    ],
)
def test_real_constructors_load_by_name(name: str, bands: tuple[str, ...], tile: int, tmp_path: Path) -> None:
    spec = contract(*bands, tile=tile, gsd=10.0)
    made = outside_geo.build(name, getattr(geo, name), spec, 0)
    net: Any = made.net if isinstance(made, outside_geo.ContractNet) else made
    net = getattr(geo, name)(weights=None, in_chans=len(bands), num_classes=0) if net is None else net
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("fc_norm")}  # pretraining files lack it
    state = state if isinstance(made, outside_geo.ContractNet) else net.state_dict()
    torch.save(state | ({"mask_token": torch.ones(1)} if "panopticon" in name else {}), tmp_path / "w.pth")
    found, row = load_outside(f"torchgeo:{name}", spec, (), tmp_path / "w.pth")
    assert row.task == "embedding" and found(torch.zeros(1, *spec.shape)).shape[0] == 1
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in found.state_dict().items())


def test_croma_takes_the_authors_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One state dict per part, radar parts too where only optical ones are built."""
    monkeypatch.setattr(geo, "croma_base", maker("croma_"))
    spec = contract(*(f"b{i}x" for i in range(12)))
    net = maker("croma_")(image_size=64)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in net.state_dict().items():
        part, _, rest = key.partition(".")
        if rest:
            parts.setdefault(part, {})[rest] = value
    assert {"s1_encoder", "s2_encoder", "joint_encoder"} < set(parts)
    torch.save(parts, tmp_path / "CROMA_base.pt")
    found, _ = load_outside("torchgeo:croma_base", spec, (), tmp_path / "CROMA_base.pt")
    state = found.state_dict()
    assert torch.equal(state["net.s2_encoder.linear_input.weight"], parts["s2_encoder"]["linear_input.weight"])


@pytest.mark.skipif(util.find_spec("terratorch") is not None, reason="terratorch is installed")
def test_terratorch_says_where_it_runs() -> None:
    with pytest.raises(MissingCapability, match=r"needs Python 3\.12") as caught:
        load_outside("terratorch:prithvi_eo_v2_300", contract(*OPTICAL))
    assert "terra/bin/pip install 'rsedge[all,terratorch]'" in str(caught.value)
