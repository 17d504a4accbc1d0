"""terratorch's backbones and fine-tuned tasks; run by `make test-terratorch` (Python 3.12), skipped where it is not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.outside import terratorch as outside_terra
from rsedge.models.outside.loading import load_outside
from tests import UNTUNED
from tests.models.outside.test_outside_geo import contract, same

pytest.importorskip("terratorch", reason="terratorch is not installed (Python 3.12; `make test-terratorch` has it)")
DOCUMENT = Path(__file__).parents[3] / "docs" / "outside.md"
DATA = Path(os.environ.get("RSEDGE_DATA", "../shared/data")) / "sen1floods11_spain"
HLS_NAMES = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
TINY: dict[str, Any] = {
    "backbone": "prithvi_eo_tiny",
    "backbone_pretrained": True,  # as in a training run's settings: nothing may be fetched for it
    "backbone_img_size": 64,
    "backbone_depth": 2,
    "backbone_bands": HLS_NAMES,
    "decoder": "FCNDecoder",
    "decoder_channels": 16,
    "num_classes": 3,
    "necks": [{"name": "SelectIndices", "indices": [0, 1]}, {"name": "ReshapeTokensToImage"}],
}


def hls(frames: int = 1, tile: int = 64) -> InputSpec:
    spec = contract(*outside_terra.HLS, tile=tile, gsd=30.0)
    return spec.model_copy(update={"layout": "TCHW" if frames > 1 else "CHW", "frames": frames})


def shaken(net: nn.Module) -> Any:
    """Tokens and positions start at 0 or as others do; here every parameter is its own."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return net.eval()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@torch.no_grad()
@pytest.mark.parametrize("old", [False, True])
def test_prithvi_loads_the_authors_file(old: bool, tmp_path: Path) -> None:
    """The masked autoencoder's file; version 1 has no names for its two halves."""
    from terratorch.registry import FULL_MODEL_REGISTRY

    name = "prithvi_eo_v2_tiny_tl"
    whole = shaken(FULL_MODEL_REGISTRY.build(f"{name}_mae", pretrained=False, num_frames=4, img_size=64))
    state = whole.state_dict()
    if old:
        state = {k.removeprefix("encoder.").replace("decoder.decoder_", "decoder_"): v for k, v in state.items()}
    torch.save(state, tmp_path / "prithvi.pt")
    for frames in (1, 3):
        net, row = load_outside(f"terratorch:{name}", hls(frames), (), tmp_path / "prithvi.pt")
        x = torch.randn(1, *hls(frames).shape)
        image = x.transpose(1, 2) if frames > 1 else x[:, :, None]
        whole.encoder.num_frames = frames
        expected = whole.encoder.forward_features(image)[-1][:, 1:].mean(1)
        assert row.task == "embedding" and expected.shape == (1, 192)
        same(net, x, expected, tmp_path)


def test_prithvi_refuses_other_bands_and_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"takes the bands blue, .* not red, green, blue"):
        outside_terra.build("prithvi_eo_tiny", contract("red", "green", "blue"))
    torch.save({"encoder.cls_token": torch.zeros(1, 1, 256), "foreign": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=r"w\.pt") as caught:
        load_outside("terratorch:prithvi_eo_tiny", hls(), (), tmp_path / "w.pt")
    assert "foreign" in str(caught.value) and "blocks.0" in str(caught.value)
    with pytest.raises(RequestError, match=r"no backbone 'prithvi_x' here; taken: finetuned, clay_v1_base, prithvi_eo"):
        outside_terra.build("prithvi_x", hls())


@torch.no_grad()
def test_terramind_takes_the_modalities_that_are_named(tmp_path: Path) -> None:
    """The authors' file has more modalities, made for 224 pixels, and a decoder."""
    from terratorch import BACKBONE_REGISTRY

    file = tmp_path / "TerraMind.pt"
    kinds = ["DEM", "S2L2A", "S2L1C", "S1GRD"]
    whole = shaken(BACKBONE_REGISTRY.build("terramind_v1_tiny", pretrained=False, modalities=kinds))
    rest = (
        "mask_token",
        "decoder_proj_context.weight",
        "decoder.0.norm1.weight",
        "decoder_embeddings.tok_dem@224.mod_emb",
    )
    torch.save(whole.state_dict() | {name: torch.ones(1) for name in rest}, file)
    spec = contract(*(f"b{i}x" for i in range(14)))
    net, _ = load_outside("terratorch:terramind_v1_tiny/S1GRD+S2L2A", spec, (), file)
    alone = BACKBONE_REGISTRY.build(
        "terramind_v1_tiny", pretrained=False, modalities=["S1GRD", "S2L2A"], img_size=64
    ).eval()
    for key, value in alone.state_dict().items():
        if not key.endswith("pos_emb"):
            value.copy_(whole.state_dict()[key])
    x = torch.randn(1, 14, 64, 64)
    same(net, x, alone({"S1GRD": x[:, :2], "S2L2A": x[:, 2:]})[-1].mean(1), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("terramind_v1_tiny", "name what the bands are of"),
        ("terramind_v1_tiny/S2L1C", r"S2L1C \(13\) takes 13 bands, the contract has 6"),
        ("terramind_v1_tiny/S9", "Could not find modality S9"),
        ("terramind_v1_tiny/Coords", "'Coords' is no image"),
        ("terramind_v9", "no backbone 'terramind_v9'"),
    ],
)
def test_terramind_says_what_is_missing(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        outside_terra.build(name, hls())


@torch.no_grad()
def test_clay_gets_wavelengths_and_distance(tmp_path: Path) -> None:
    from terratorch.models.backbones.clay_v1.embedder import Embedder

    spec = contract("blue", "green", "red", "nir", gsd=10.0)
    whole = shaken(Embedder(img_size=64, bands=list(spec.band_names)))
    state = {k.replace("clay_encoder.", "model.encoder."): v for k, v in whole.state_dict().items()}
    content = {"state_dict": state | {"model.decoder.mask": torch.ones(1), "proj.weight": torch.ones(1)}, "epoch": 7}
    torch.save(content, tmp_path / "clay-v1-base.ckpt")
    net, _ = load_outside("terratorch:clay_v1_base", spec, (), tmp_path / "clay-v1-base.ckpt")
    x = torch.randn(1, 4, 64, 64)
    waves = torch.tensor([0.49, 0.56, 0.665, 0.842])
    same(net, x, whole.forward_features(x, waves=waves, gsd=10.0)[-1][:, 1:].mean(1), tmp_path)


def trained(folder: Path, kind: str, arguments: dict[str, Any], **options: Any) -> tuple[Path, Any]:
    """What a fine-tuning script leaves behind: the task's checkpoint, and its network."""
    import lightning
    from terratorch import tasks

    task = getattr(tasks, kind)(model_factory="EncoderDecoderFactory", model_args=arguments, **options)
    shaken(task.model)
    trainer = lightning.Trainer(logger=False, accelerator="cpu", default_root_dir=folder)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "best.ckpt")
    return folder / "best.ckpt", task.model.eval()


def noted(path: Path, kind: str) -> Path:
    """The checkpoint as the command line writes it: with the class of the task."""
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["_class_path"] = f"terratorch.tasks.{kind}"
    torch.save(content, path)
    return path


WITHOUT_PRETRAINING = TINY | {"backbone_pretrained": False}
VECTOR = {
    "decoder": "IdentityDecoder",
    "necks": [{"name": "SelectIndices", "indices": [-1]}, {"name": "ReshapeTokensToImage"}],
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "changes", "task", "frames"),
    [
        ("SemanticSegmentationTask", {}, "segmentation", 1),
        ("SemanticSegmentationTask", {"backbone_num_frames": 2}, "segmentation", 2),
        ("ClassificationTask", VECTOR, "classification", 1),
        ("MultiLabelClassificationTask", VECTOR, "classification", 1),
    ],
)
def test_a_fine_tuned_task_is_built_from_its_own_settings(
    kind: str, changes: dict[str, Any], task: Any, frames: int, tmp_path: Path
) -> None:
    arguments = WITHOUT_PRETRAINING | changes
    if frames > 1:
        arguments["necks"] = [
            {"name": "SelectIndices", "indices": [0, 1]},
            {"name": "ReshapeTokensToImage", "effective_time_dim": frames},
        ]
    if task == "classification":
        arguments = {k: v for k, v in arguments.items() if k != "decoder_channels"}
    path, model = trained(tmp_path, kind, arguments)
    spec = hls(frames)
    found, row = load_outside("terratorch:finetuned", spec, ("a", "b", "c"), noted(path, kind), task)
    assert row.task == task
    x = torch.randn(1, *spec.shape)
    expected = model(x.transpose(1, 2) if frames > 1 else x).output
    assert torch.allclose(found(x), expected, atol=1e-6)
    assert expected.shape == ((1, 3, 64, 64) if task == "segmentation" else (1, 3))


@torch.no_grad()
def test_a_number_per_image(tmp_path: Path) -> None:
    arguments = {
        k: v for k, v in (WITHOUT_PRETRAINING | VECTOR).items() if k not in ("decoder_channels", "num_classes")
    }
    path, model = trained(tmp_path, "ScalarRegressionTask", arguments | {"num_outputs": 1})
    x = torch.randn(1, 6, 64, 64)
    for file in (path, noted(path, "ScalarRegressionTask")):
        found, row = load_outside("terratorch:finetuned", hls(), ("moisture",), file, "regression")
        assert row.task == "regression"
        assert torch.allclose(found(x), model(x).output.reshape(1, 1), atol=1e-6)


@torch.no_grad()
def test_two_modalities_of_a_fine_tuned_task(tmp_path: Path) -> None:
    arguments = WITHOUT_PRETRAINING | {"backbone": "terramind_v1_tiny", "backbone_modalities": ["S2L2A", "S1GRD"]}
    arguments = {k: v for k, v in arguments.items() if k not in ("backbone_bands", "backbone_depth")}
    path, model = trained(tmp_path, "SemanticSegmentationTask", arguments)
    spec = contract(*(f"b{i}x" for i in range(14)))
    found, _ = load_outside("terratorch:finetuned", spec, ("a", "b", "c"), path, "segmentation")
    x = torch.randn(1, 14, 64, 64)
    expected = model({"S2L2A": x[:, :12], "S1GRD": x[:, 12:]}).output
    assert torch.allclose(found(x), expected, atol=1e-6)
    with pytest.raises(RequestError, match=r"S2L2A \(12\) \+ S1GRD \(2\) takes 14 bands, the contract has 6"):
        load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), path, "segmentation")


def test_auxiliary_heads_and_band_names_stay_behind(tmp_path: Path) -> None:
    """They stand in the checkpoint as objects of terratorch's, which are read without running its code."""
    from terratorch.datasets import HLSBands
    from terratorch.models.model import AuxiliaryHead

    arguments = WITHOUT_PRETRAINING | {"backbone_bands": [HLSBands(name) for name in HLS_NAMES]}
    heads = [AuxiliaryHead("aux", "FCNDecoder", {"decoder_channels": 8})]
    path, model = trained(tmp_path, "SemanticSegmentationTask", arguments, aux_heads=heads, aux_loss={"aux": 0.5})
    assert any(k.startswith("aux_heads.") for k in model.state_dict())
    found, _ = load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), path, "segmentation")
    x = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        assert torch.allclose(found(x), model(x).output, atol=1e-6)


def test_checkpoints_that_do_not_say_enough(tmp_path: Path) -> None:
    path, model = trained(tmp_path, "SemanticSegmentationTask", WITHOUT_PRETRAINING)
    with pytest.raises(RequestError, match=r"set teacher\.task to one of segmentation"):
        load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), path)
    with pytest.raises(RequestError, match="ObjectDetectionTask is not taken here"):
        load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), noted(path, "ObjectDetectionTask"))
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(RequestError, match=r"bare\.pt: no hyper_parameters with model_factory and model_args"):
        load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), tmp_path / "bare.pt")
    with pytest.raises(RequestError, match="needs a checkpoint"):
        load_outside("terratorch:finetuned", hls(), ("a", "b", "c"))
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["_class_path"] = "terratorch.tasks.SemanticSegmentationTask"
    content["hyper_parameters"]["model_args"]["decoder"] = "NoSuchDecoder"
    torch.save(content, path)
    with pytest.raises(RequestError, match=r"best\.ckpt: terratorch cannot build .*NoSuchDecoder"):
        load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), path)


def test_nothing_is_fetched_for_the_backbone(tmp_path: Path) -> None:
    path, model = trained(tmp_path, "SemanticSegmentationTask", WITHOUT_PRETRAINING)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["model_args"] = TINY | {"backbone_ckpt_path": "/nowhere/prithvi.pt"}
    torch.save(content, path)
    found, _ = load_outside("terratorch:finetuned", hls(), ("a", "b", "c"), path, "segmentation")
    x = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        assert torch.allclose(found(x), model(x).output, atol=1e-6)


@pytest.mark.skipif(not DATA.is_dir(), reason="RSEDGE_DATA has no flood scene")
def test_the_recipe_in_the_documents_runs(tmp_path: Path) -> None:
    """A fine-tuned checkpoint becomes a quantized student on OpenVINO (docs/outside.md), in few steps."""
    block = re.search(r"^```yaml\n(name: flood-from-prithvi\n.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    assert block is not None
    recipe = yaml.safe_load(block[1])
    arguments = WITHOUT_PRETRAINING | {"backbone_img_size": 128, "num_classes": 2}
    path, _ = trained(tmp_path, "SemanticSegmentationTask", arguments)
    noted(path, "SemanticSegmentationTask")
    recipe["steps"] = [{"distill": {"steps": 10, "views": 40, "batch": 4}}, {"quantize": {"max_trials": 1, **UNTUNED}}]
    recipe["gates"] = [{"metric": "agreement", "min": 0.0}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "rsedge.cli", "run", "recipe.yaml", "--run-dir", "run"]
    surroundings = os.environ | {"RSEDGE_DATA": str(DATA.parent.resolve())}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run/bundles/openvino-cpu-int8").is_dir()
