"""Networks of other libraries as teachers, one loader each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.boxes.candidates import angles_of
from rsedge.data.errors import RequestError
from rsedge.models.answers import check_candidates
from rsedge.models.outside.arguments import check_free
from rsedge.models.outside.loading import load_outside
from rsedge.models.structure import load_model, save_model
from rsedge.models.students import build_student
from rsedge.models.students.itself import rebuild
from rsedge.tasks.boxes import training_boxes

CLASSES = ("water", "land")


def contract(*bands: str, tile: int = 64) -> InputSpec:
    return InputSpec(bands=tuple(BandSpec(name=b) for b in bands), tile=tile)


def saved(net: nn.Module, path: Path) -> Path:
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}, "epoch": 1}, path)
    return path


def test_timm(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("resnet18", in_chans=4, num_classes=2).eval()
    spec = contract("blue", "green", "red", "nir")
    found, row = load_outside("timm:resnet18", spec, CLASSES, saved(net, tmp_path / "x.pth"))
    x = torch.randn(1, 4, 64, 64)
    assert torch.equal(found(x), net(x)) and row.task == "classification" and row.params == 11_180_674
    with pytest.raises(RequestError, match="no model 'resnet19'"):
        load_outside("timm:resnet19", spec, CLASSES, tmp_path / "x.pth")
    with pytest.raises(RequestError, match=r"other shapes: fc\.weight"):
        load_outside("timm:resnet18", spec, ("a", "b", "c"), tmp_path / "x.pth")


def test_torchvision_and_torchgeo(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v3_small

    net = mobilenet_v3_small(num_classes=2).eval()
    rgb = contract("red", "green", "blue")
    found, _ = load_outside("torchvision:mobilenet_v3_small", rgb, CLASSES, saved(net, tmp_path / "v.pth"))
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(found(x), net(x))
    with pytest.raises(RequestError, match="takes three bands, not 1"):
        load_outside("torchvision:mobilenet_v3_small", contract("red"), CLASSES, tmp_path / "v.pth")
    torchgeo = pytest.importorskip("torchgeo.models")
    geo = torchgeo.resnet18(weights=None, in_chans=7, num_classes=0).eval()
    spec = contract(*"abcdefg")
    found, row = load_outside("torchgeo:resnet18", spec, (), saved(geo, tmp_path / "g.pth"))
    assert row.task == "embedding" and found(torch.zeros(1, 7, 64, 64)).shape == (1, 512)
    with pytest.raises(RequestError, match="takes more than an image"):
        load_outside("torchgeo:earthloc", spec, (), tmp_path / "g.pth")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("timm:resnet10t", "fc"),
        ("timm:convnext_atto", "head.fc"),
        ("timm:levit_128s", "head_dist.bn"),
        ("torchgeo:resnet18", "fc"),
    ],
)
def test_an_encoder_leaves_the_head_of_a_classifiers_file_out_and_says_so(name: str, head: str, tmp_path: Path) -> None:
    import timm

    spec, plain = contract("red", "green", "blue", tile=224), name.partition(":")[2]
    net = timm.create_model(plain, num_classes=1000).eval()
    found, row = load_outside(name, spec, (), saved(net, tmp_path / "x.pth"))
    x = torch.randn(1, 3, 224, 224)
    assert row.task == "embedding" and torch.allclose(
        found(x), net.forward_head(net.forward_features(x), pre_logits=True)
    )
    assert any("its head is left out" in note and head in note for note in row.notes)
    save = timm.create_model(plain, num_classes=0).state_dict()
    torch.save(save | {"queue": torch.zeros(3)}, tmp_path / "more.pth")
    with pytest.raises(RequestError, match="1 left-over keys: queue"):
        load_outside(name, spec, (), tmp_path / "more.pth")


def test_siamese_networks_of_torchgeo_take_two_dates(tmp_path: Path) -> None:
    torchgeo = pytest.importorskip("torchgeo.models")
    net = torchgeo.FCSiamDiff(encoder_name="resnet18", encoder_weights=None, in_channels=2, classes=2).eval()
    spec = contract("red", "nir").model_copy(update={"layout": "TCHW", "frames": 2})
    found, row = load_outside("torchgeo:fcsiamdiff/resnet18", spec, CLASSES, saved(net, tmp_path / "c.pth"))
    x = torch.randn(1, 2, 2, 64, 64)
    assert torch.equal(found(x), net(x)) and row.task == "segmentation"
    for name, wrong in (("fcsiamdiff", spec), ("fcsiamdiff/resnet18", contract("red", "nir"))):
        with pytest.raises(RequestError, match="compares two dates: give its encoder"):
            load_outside(f"torchgeo:{name}", wrong, CLASSES, tmp_path / "c.pth")
    with pytest.raises(RequestError, match="no such encoder"):
        load_outside("torchgeo:fcsiamconc/resnet19", spec, CLASSES, tmp_path / "c.pth")


def test_smp(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    net = smp.create_model("unet", "resnet18", None, in_channels=2, classes=2).eval()
    found, row = load_outside("smp:unet/resnet18", contract("a", "b"), CLASSES, saved(net, tmp_path / "s.pth"))
    assert row.task == "segmentation" and found(torch.zeros(1, 2, 64, 64)).shape == (1, 2, 64, 64)
    with pytest.raises(RequestError, match="architecture/encoder"):
        load_outside("smp:unet", contract("a"), CLASSES, tmp_path / "s.pth")


def test_transformers(tmp_path: Path) -> None:
    hf = pytest.importorskip("transformers")
    config = hf.SegformerConfig(
        num_channels=3, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, num_labels=2,
    )  # fmt: skip
    hf.SegformerForSemanticSegmentation(config).eval().save_pretrained(tmp_path / "hf")
    found, row = load_outside(f"transformers:{tmp_path / 'hf'}", contract("r", "g", "b"), CLASSES)
    assert row.task == "segmentation" and found(torch.zeros(2, 3, 64, 64)).shape == (2, 2, 64, 64)
    with pytest.raises(RequestError, match=r"no config\.json"):
        load_outside(f"transformers:{tmp_path}", contract("r"), CLASSES)


def test_any_onnx_file_is_a_black_box(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    torch.onnx.export(net, (torch.zeros(1, 3, 64, 64),), tmp_path / "m.onnx", dynamo=True, verbose=False)
    spec = contract("r", "g", "b")
    found, row = load_outside(f"onnx:{tmp_path / 'm.onnx'}", spec, CLASSES)
    x = torch.randn(3, 3, 64, 64)
    assert torch.allclose(found(x), net(x), atol=1e-5) and row.task == "classification"
    with pytest.raises(RequestError, match="gives 2 outputs, but 1 classes"):
        load_outside(f"onnx:{tmp_path / 'm.onnx'}", spec, ("one",))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(RequestError, match=r"bad\.onnx: ONNX Runtime cannot open it"):
        load_outside(f"onnx:{tmp_path / 'bad.onnx'}", spec)
    with pytest.raises(RequestError, match="no such ONNX file"):
        load_outside("onnx:none.onnx", spec)


def test_wrong_names_and_missing_weights(tmp_path: Path) -> None:
    spec = contract("a")
    with pytest.raises(RequestError, match="names no loader; known: timm:, torchvision:"):
        load_outside("keras:x", spec)
    with pytest.raises(RequestError, match="needs a checkpoint: nothing is downloaded"):
        load_outside("timm:resnet18", spec)
    with pytest.raises(RequestError, match="brings its own weights"):
        load_outside("onnx:m.onnx", spec, checkpoint=tmp_path / "w.pth")


class Candidates(nn.Module):
    """Boxes of eight pixels around each cell of eight, as sure as the band is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = nn.functional.avg_pool2d(x, 8).flatten(2).transpose(1, 2)
        at = torch.arange(8.0) * 8 + 4
        centres = torch.cartesian_prod(at, at).flip(1)[None]
        return torch.cat([centres, torch.full_like(centres, 8.0), cells, cells, 1 - cells], 2)


def test_an_onnx_detector_gives_candidates(tmp_path: Path) -> None:
    spec = contract("red")
    torch.onnx.export(Candidates(), (torch.rand(1, 1, 64, 64),), tmp_path / "d.onnx", dynamo=True, verbose=False)
    name = f"onnx:{tmp_path / 'd.onnx'}"
    found, row = load_outside(name, spec, CLASSES, task="detection")
    assert row.task == "detection" and row.classes == CLASSES
    x = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(found(x), Candidates()(x))
    with pytest.raises(RequestError, match=r"detectors \(task: detection\) give candidates"):
        load_outside(name, spec, CLASSES)
    with pytest.raises(RequestError, match="gives 2 outputs, but 1 classes are named"):
        load_outside(name, spec, ("one",), task="detection")
    with pytest.raises(RequestError, match="name them under"):
        load_outside(name, spec, task="detection")


def test_an_onnx_detector_of_turned_boxes_teaches_them(tmp_path: Path) -> None:
    """A student of ours as somebody's ONNX file: its boxes, certainty, classes and angles go into what is taught."""
    options = {
        "stem": 8,
        "encoder": [8, 16],
        "blocks": [0, 0],
        "decoder": [16],
        "levels": [1],
        "head": 8,
        "oriented": True,
    }
    torch.manual_seed(0)
    net = build_student("slim-detector", {"bands": 1, "classes": 2, "tile": 64, **options}).eval()
    with torch.no_grad():
        net.heads[0][1].bias[4:7] = 1.0  # type: ignore[index, union-attr]
    torch.onnx.export(net, (torch.rand(1, 1, 64, 64),), tmp_path / "d.onnx", dynamo=True, verbose=False)
    found, row = load_outside(f"onnx:{tmp_path / 'd.onnx'}", contract("red"), CLASSES, task="detection")
    assert row.classes == CLASSES
    given = found(torch.rand(2, 1, 64, 64)).numpy()
    check_candidates(given, "d", 2, oriented=True)
    taught = training_boxes(given, 0.45, oriented=True)
    assert taught.shape == (2, 128, 8)
    for table, candidates in zip(taught, given, strict=True):
        real = table[table[:, 4] > 0]
        angles = angles_of(candidates)
        assert len(real) > 3 and np.isin(real[:, 7], angles.astype(np.float32)).all()
        assert np.isin(real[:, 4:7], candidates[:, 4:7]).all()
    with pytest.raises(RequestError, match="gives 4 outputs, but 3 classes are named; candidates have 5 columns"):
        load_outside(f"onnx:{tmp_path / 'd.onnx'}", contract("red"), ("a", "b", "c"), task="detection")


def test_a_network_of_one_size_is_built_for_the_tile_and_takes_arguments(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", img_size=64, in_chans=3, num_classes=2, depth=2).eval()
    torch.save({"model": {f"_orig_mod.{n}": v for n, v in net.state_dict().items()}, "ema": None}, tmp_path / "v.pth")
    spec = contract("r", "g", "b")
    name, arch = "timm:vit_tiny_patch16_224", {"depth": 2}
    found, row = load_outside(name, spec, CLASSES, tmp_path / "v.pth", arch=arch)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(found(x), net(x))
    assert row.notes == ("v.pth: weights from its entry model; '_orig_mod.' taken off their names",)
    rebuilt = rebuild("timm", row.arch)
    rebuilt.load_state_dict(found.state_dict())
    assert torch.equal(rebuilt(x), net(x))
    with pytest.raises(RequestError, match="missing keys"):
        load_outside(name, spec, CLASSES, tmp_path / "v.pth")
    with pytest.raises(RequestError, match=r"teacher\.arch: 'timm:.*cannot be built with {'deepth': 2}"):
        load_outside(name, spec, CLASSES, tmp_path / "v.pth", arch={"deepth": 2})
    with pytest.raises(
        RequestError, match=r"teacher\.arch: num_classes follows from teacher\.input and teacher\.classes"
    ):
        load_outside(name, spec, CLASSES, tmp_path / "v.pth", arch={"num_classes": 2})
    with pytest.raises(RequestError, match=r"takes none here"):
        load_outside(f"onnx:{tmp_path}/m.onnx", spec, CLASSES, arch=arch)
    with pytest.raises(RequestError, match="gives 2 outputs, and 3 classes are named: name all of them under teacher"):
        load_outside(name, spec, ("a", "b", "c"), tmp_path / "v.pth", arch=arch)


@pytest.mark.parametrize("name", ["smp:unet/resnet18", "timm:resnet18", "torchvision:resnet18"])
def test_what_a_library_builds_is_rebuilt_from_its_structure(name: str, tmp_path: Path) -> None:
    """Pruned widths too: a structure says which library, with which arguments."""
    spec = contract("r", "g", "b")
    arch = {"decoder_channels": [32, 32, 16, 16, 16]} if name.startswith("smp") else {}
    made = {"name": name, "input": spec.model_dump(mode="json"), "classes": ["flood"], "arch": arch}
    torch.manual_seed(0)
    net = rebuild(name.partition(":")[0], made)
    torch.save({"state_dict": {f"net.{n}": v for n, v in net.state_dict().items()}}, tmp_path / "w.pth")
    found, row = load_outside(name, spec, ("flood",), tmp_path / "w.pth", arch=arch)
    save_model(found, tmp_path / "saved", "teacher", {"family_name": row.family, "arch": row.arch})
    again = load_model(tmp_path / "saved", build_student)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), found(x))
    assert all(torch.equal(v, found.state_dict()[n]) for n, v in again.state_dict().items())
    if name.startswith("smp"):
        assert row.classes == ("background", "flood") and again(x).shape[1] == 2


REACHING = (
    "pretrained", "weights", "weights_backbone", "encoder_weights", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay",
    "pretrained_backbone", "cache_dir",
)  # fmt: skip


@pytest.mark.parametrize("name", ["timm:resnet18", "torchvision:resnet18", "torchgeo:resnet50", "smp:unet/tu-resnet18"])
@pytest.mark.parametrize("argument", REACHING)
def test_arguments_do_not_fetch_or_read(
    name: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("it looks for a host")

    pytest.importorskip({"smp": "segmentation_models_pytorch"}.get(name.partition(":")[0], name.partition(":")[0]))
    monkeypatch.setattr("socket.getaddrinfo", reached)
    with pytest.raises(RequestError, match=rf"teacher\.arch: {argument}.*(teacher\.checkpoint alone|leave it out)"):
        load_outside(name, contract("red", "green", "blue"), CLASSES, tmp_path / "w.pt", arch={argument: "/etc/passwd"})


def test_arguments_about_paths_inside_a_network_are_taken() -> None:
    check_free({"drop_path_rate": 0.1, "global_pool": "avg"}, ())
