"""The catalogue: every entry builds from a contract, gives its shape, and comes back from structure and tensors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rsedge.data.errors import RequestError
from rsedge.models.structure import load_model, save_model, tensors_digest
from rsedge.models.students import CATALOGUE, build_student, contract_arguments
from tests.models.students.small_students import OUTPUTS, QUICK, output_shape, small_arguments, small_contract


def test_the_catalogue_is_read_without_torch() -> None:
    probe = "import sys, rsedge.models.students; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CATALOGUE])
def test_an_entry_builds_and_comes_back(name: str, tmp_path: Path) -> None:
    for layout in CATALOGUE[name].layouts:
        spec = small_contract(name, layout)
        kwargs = small_arguments(name, spec)
        torch.manual_seed(0)
        net = build_student(name, kwargs).eval()
        x = torch.rand(1, *spec.shape)
        with torch.inference_mode():
            found = net(x)
        assert tuple(found.shape) == output_shape(name, spec)
        folder = tmp_path / layout
        save_model(net, folder, name, kwargs)
        loaded = load_model(folder, build_student)
        assert tensors_digest(loaded) == tensors_digest(net)
        with torch.inference_mode():
            torch.testing.assert_close(loaded(x), found)


@pytest.mark.parametrize(
    ("name", "options", "first", "tensors", "params", "head"),
    [
        ("slim-unet", {}, "stem.0.weight", 104, 574_099, -1.8336445093154907),
        ("smp-unet", {"encoder": "mobilenet_v2"}, "encoder.features.0.0.weight", 374, 4_135_490, -0.8858190468745306),
    ],
)
def test_the_u_nets_are_those_of_earlier_runs(
    name: str, options: dict[str, str], first: str, tensors: int, params: int, head: float
) -> None:
    """Names, order of drawing and values as in version 0.1.0, whose runs are cached."""
    torch.manual_seed(0)
    shape = {"bands": 6, "classes": 3} if name == "slim-unet" else {"bands": 4, "classes": 2}
    net = build_student(name, {**shape, **options})
    state = net.state_dict()
    names = list(state)
    assert (names[0], len(names), sum(p.numel() for p in net.parameters())) == (first, tensors, params)
    assert names[-1].endswith("bias") and state[names[-2]].double().sum().item() == pytest.approx(head, abs=1e-12)


def test_wrong_requests_name_what_fits() -> None:
    with pytest.raises(RequestError, match=r"'slim-unit' is unknown.*nearest: 'slim-unet'"):
        build_student("slim-unit", {})
    with pytest.raises(RequestError, match=r"student 'slim-unet'.*depth"):
        build_student("slim-unet", {"bands": 3, "classes": 2, "depth": 4})
    series = small_contract("series-conv", "TC")
    with pytest.raises(RequestError, match="takes CHW, the teacher's input is TC; these do: series-transformer"):
        contract_arguments("slim-unet", series, OUTPUTS)


def test_arguments_can_be_written_as_json() -> None:
    for name, entry in CATALOGUE.items():
        for layout in entry.layouts:
            kwargs = contract_arguments(name, small_contract(name, layout), OUTPUTS)
            assert json.loads(json.dumps(kwargs)) == kwargs
            assert set(kwargs) == set(entry.arguments)
