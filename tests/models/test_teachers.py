"""The UKIS teacher with its real weights, against the published graph itself."""

import numpy as np
import pytest
import torch

pytest.importorskip("ukis_csmask")

from rsedge.data.errors import RequestError
from rsedge.models.students import build_student
from rsedge.models.teachers import UKIS, _ukis_folder, _ukis_stem, load_teacher
from rsedge.models.zoo import zoo


@pytest.mark.parametrize("name", UKIS)
def test_teacher_equals_the_published_onnx(name: str) -> None:
    import onnxruntime as ort

    teacher = load_teacher(name)
    x = np.random.default_rng(0).normal(size=(1, teacher.spec.input_spec.channels, 256, 256)).astype(np.float32)
    session = ort.InferenceSession(_ukis_folder() / f"{_ukis_stem(name)}.onnx")
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.inference_mode():
        ours = teacher(torch.from_numpy(x)).numpy()
    # The published graph computes in half precision; ours in single.
    assert np.abs(ours - expected).mean() < 2e-2
    assert (ours.argmax(1) == expected.argmax(1)).mean() > 0.998


def test_zoo_rows_state_the_built_parameter_counts() -> None:
    rows = {r.name: r for r in zoo()}
    assert set(rows) == set(UKIS)
    for name in UKIS[:1] + UKIS[2:3]:
        assert sum(p.numel() for p in load_teacher(name).parameters()) == rows[name].params


def test_unknown_teacher_lists_the_known() -> None:
    with pytest.raises(RequestError, match="ukis-csmask-6b-l1c"):
        load_teacher("prithvi")


@pytest.mark.parametrize("kwargs", [{}, {"stem": 8, "encoder": (16, 24), "blocks": (0, 2), "decoder": (16, 8)}])
def test_slim_unet_keeps_the_resolution(kwargs: dict[str, object]) -> None:
    net = build_student("slim-unet", {"bands": 6, "classes": 3, **kwargs})
    assert net(torch.zeros(1, 6, 64, 64)).shape == (1, 3, 64, 64)


def test_bad_student_arguments_are_named() -> None:
    with pytest.raises(RequestError, match="widht"):
        build_student("slim-unet", {"bands": 6, "classes": 3, "widht": 2})
    with pytest.raises(RequestError, match="slim-unet, smp-unet"):
        build_student("big", {})
