"""Narrow copies: the teacher's function where nothing is cut, its strongest channels and even layers where something is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rsedge.data.errors import RequestError
from rsedge.models.structure import load_model, save_model
from rsedge.models.students import build_student
from rsedge.models.students.narrow import narrow_arguments, start_from
from rsedge.models.teachers import Teacher
from tests.models.small import random_net, small_row

SMALLER: dict[str, dict[str, Any]] = {
    "seco-resnet50": {"width": 4},
    "satmae-rgb-vitl": {"dim": 16, "depth": 1},
    "geoclip-location": {"width": 16},
    "presto": {"dim": 8, "depth": 1},
    "so2sat-resnet20": {"width": 2},
}


def teacher_of(name: str) -> Teacher:
    row = small_row(name)
    return Teacher(random_net(row), row, row.arch).eval()


def copy_of(teacher: Teacher, arch: dict[str, Any]) -> tuple[nn.Module, dict[str, Any], dict[str, int]]:
    kwargs = narrow_arguments(teacher, {"arch": arch})
    net = build_student("narrow-copy", kwargs)
    return net.eval(), kwargs, start_from(net, teacher.net)


@pytest.mark.parametrize("name", SMALLER)
def test_an_uncut_copy_is_the_teacher_and_a_cut_one_is_smaller(name: str, tmp_path: Path) -> None:
    teacher = teacher_of(name)
    x = torch.rand(2, *teacher.spec.input_spec.shape)
    key = next(iter(SMALLER[name]))
    whole, _, counts = copy_of(teacher, {key: small_row(name).arch[key]})
    assert (counts["narrowed"], counts["drawn"]) == (0, 0)
    small, kwargs, counts = copy_of(teacher, SMALLER[name])
    assert counts["narrowed"] > 0.5 * sum(counts.values()) and counts["drawn"] == 0
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in whole.parameters())
    save_model(small, tmp_path, "narrow-copy", kwargs)
    with torch.inference_mode():
        torch.testing.assert_close(whole(x), teacher(x))
        torch.testing.assert_close(load_model(tmp_path, build_student)(x), small(x))


def test_the_strongest_channels_and_even_blocks_stay() -> None:
    large = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(6, 6) for _ in range(5)), "head": nn.Linear(6, 2)})
    with torch.no_grad():
        for i, block in enumerate(large["blocks"]):  # type: ignore[arg-type]
            block.weight.fill_(0.1 + i)
            block.weight[:, [1, 4]] *= 10
            block.weight[[1, 4]] *= 10
    small = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(2, 2) for _ in range(3)), "head": nn.Linear(2, 2)})
    assert start_from(small, large) == {"whole": 1, "narrowed": 7, "drawn": 0}
    for i, origin in enumerate((0, 2, 4)):
        expected = large.get_submodule(f"blocks.{origin}").weight[[1, 4]][:, [1, 4]]
        torch.testing.assert_close(small.get_submodule(f"blocks.{i}").weight, expected)
    torch.testing.assert_close(small.get_submodule("head").weight, large.get_submodule("head").weight[:, [1, 4]])


def test_what_is_no_smaller_architecture_is_refused() -> None:
    teacher = teacher_of("presto")
    with pytest.raises(RequestError, match=r"takes arch alone.*presto has \{'dim': 16"):
        narrow_arguments(teacher, {"width": 4})
    with pytest.raises(RequestError, match=r"student 'narrow-copy'.*wdith"):
        build_student("narrow-copy", narrow_arguments(teacher, {"arch": {"wdith": 4}}))
