"""The UKIS teacher with its real weights, against the published graph itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ukis_csmask")

from rsedge.data.errors import RequestError
from rsedge.models.students import build_student
from rsedge.models.teachers import load_teacher, packaged_path, sniff
from rsedge.models.zoo import Packaged, teacher_row, zoo
from tests.conftest import Results

UKIS = [row.name for row in zoo() if row.family == "ukis"]


def published(name: str) -> Packaged:
    weights = teacher_row(name).weights
    assert weights is not None
    return weights


@pytest.mark.parametrize("name", UKIS)
def test_teacher_equals_the_published_onnx(name: str, results: Results) -> None:
    import onnxruntime as ort

    teacher = load_teacher(name)
    x = np.random.default_rng(0).normal(size=(1, teacher.spec.input_spec.channels, 256, 256)).astype(np.float32)
    session = ort.InferenceSession(packaged_path(published(name), name))
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.inference_mode():
        ours = teacher(torch.from_numpy(x)).numpy()
    # The published graph computes in half precision; ours in single.
    assert np.abs(ours - expected).mean() < 2e-2
    same = (ours.argmax(1) == expected.argmax(1)).mean()
    assert same > 0.998
    assert sum(p.numel() for p in teacher.parameters()) == teacher.spec.params
    outcomes = {
        "size": "exact",
        "file": "real weights",
        "authors": f"published graph, half precision: {same:.2%} of classes",
    }
    results.setdefault(name, {}).update(outcomes)


@pytest.mark.parametrize("name", UKIS)
def test_band_statistics_are_those_of_the_wheel(name: str) -> None:
    path = packaged_path(published(name), name).with_suffix(".json")
    mean, std = json.loads(path.read_text())["data"]["dataset_statistics"]["img"]
    spec = teacher_row(name).input_spec
    assert ([b.mean for b in spec.bands], [b.std for b in spec.bands]) == (mean, std)


def test_unknown_teacher_names_the_nearest_and_one_without_weights_says_so() -> None:
    with pytest.raises(RequestError, match="ukis-csmask-6b-l1c"):
        load_teacher("ukis-csmask-6b")


@pytest.mark.parametrize("name", UKIS[1:3])
def test_the_sniffer_knows_the_published_file(name: str) -> None:
    bands = teacher_row(name).input_spec.channels
    assert sniff(packaged_path(published(name), name)) == [n for n in UKIS if f"-{bands}b-" in n]


def test_the_sniffer_says_what_does_not_fit(tmp_path: Path) -> None:
    state = load_teacher(UKIS[0]).net.state_dict()
    lacking = {k: v for k, v in state.items() if k != "encoder._blocks.3._bn1.weight"}
    torch.save(lacking, tmp_path / "cut.pt")
    with pytest.raises(RequestError, match=rf"like {UKIS[0]}, but 1 missing keys: encoder\._blocks\.3\._bn1\.weight"):
        sniff(tmp_path / "cut.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(RequestError, match="no teacher's checkpoint looks like this"):
        sniff(tmp_path / "other.pt")


@pytest.mark.parametrize("kwargs", [{}, {"stem": 8, "encoder": (16, 24), "blocks": (0, 2), "decoder": (16, 8)}])
def test_slim_unet_keeps_the_resolution(kwargs: dict[str, object]) -> None:
    net = build_student("slim-unet", {"bands": 6, "classes": 3, **kwargs})
    assert net(torch.zeros(1, 6, 64, 64)).shape == (1, 3, 64, 64)


def test_bad_student_arguments_are_named() -> None:
    with pytest.raises(RequestError, match="widht"):
        build_student("slim-unet", {"bands": 6, "classes": 3, "widht": 2})
    with pytest.raises(RequestError, match="slim-unet, smp-unet"):
        build_student("big", {})
