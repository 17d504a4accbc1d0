"""What is said of a checkpoint, and whether another implementation's outputs are told from ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.models import zoo
from rsedge.models.checking import Checked, check_file
from rsedge.models.conformance import contract_input, drawn, meant
from rsedge.models.families import family
from rsedge.models.fixed_outputs import (
    Reference,
    against,
    figures,
    kept,
    outputs_of,
    parts_of,
    read_reference,
    reference_arrays,
)
from rsedge.models.teachers import meta_net
from rsedge.models.zoo import TeacherRow, teacher_row
from tests.models import authors, small, small_parts

DOCUMENT = Path(__file__).parents[2] / "docs/checking.md"
NAMES = sorted({row.family: row.name for row in zoo.zoo() if row.weights is None or row.family == "geoclip"}.values())
"""One row of each family but of those that come in a wheel alone."""


def reduced(name: str) -> TeacherRow:
    return (small if teacher_row(name).family in small.SMALL else small_parts).small_row(name)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[TeacherRow]:
    """Filled by a test: the rows that there are."""
    found: list[TeacherRow] = []
    monkeypatch.setattr(zoo, "zoo", lambda: found)
    return found


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "authors.pth")
    return folder / "authors.pth"


def state_of(row: TeacherRow, prefix: str = "other.", **arch: Any) -> dict[str, torch.Tensor]:
    """Tensors under the network's names, not those that the rule draws for these."""
    own = {k: v for k, v in meta_net(row.family, row.arch | arch).state_dict().items() if "num_batches" not in k}
    return {k: torch.from_numpy(drawn(prefix + k, tuple(v.shape))) for k, v in own.items()}


def stored(checked: Checked, folder: Path) -> Reference:
    """Our outputs through the file in which a laboratory sends its own."""
    ((_, part),) = list(parts_of(checked.teacher).items())[:1]
    np.savez(folder / "theirs.npz", **reference_arrays(part, outputs_of(part)))
    return read_reference(folder / "theirs.npz")


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_checked_and_compared(name: str, tmp_path: Path, rows: list[TeacherRow]) -> None:
    row = teacher_row_of(name, rows)
    writer = small if row.family in small.SMALL else small_parts
    checked = check_file(writer.authors_file(row, small.random_net(row), tmp_path), name)
    assert checked.used > 0 and checked.row.name == name and not checked.drawn
    assert checked.fits == ((name,) if row.checkpoint.marks else ())
    for part in parts_of(checked.teacher).values():
        assert all(figures(n, array).finite for n, array in outputs_of(part).items())
    reference = stored(checked, tmp_path)
    judged = against(checked.teacher, reference)
    assert judged and all(one.agrees and one.difference == 0 for one in judged)
    changed = {key: array + 1e-3 * np.abs(array).max() for key, array in reference.outputs.items()}
    assert not any(one.agrees for one in against(checked.teacher, Reference(reference.path, reference.inputs, changed)))


def teacher_row_of(name: str, rows: list[TeacherRow]) -> TeacherRow:
    rows[:] = []
    rows.append(next(row for row in zoo._read() if row.name == name))
    rows[0] = reduced(name)
    return rows[0]


def test_what_of_a_file_is_used_and_what_is_left_out(tmp_path: Path, rows: list[TeacherRow]) -> None:
    row = teacher_row_of("seco-resnet18", rows)
    names = {"conv1.": "0.", "bn1.": "1.", "layer1.": "4.", "layer2.": "5.", "layer3.": "6.", "layer4.": "7."}
    renamed = {
        next((new + k[len(old) :] for old, new in names.items() if k.startswith(old)), k): v
        for k, v in state_of(row).items()
    }
    checked = check_file(saved(authors.seco(renamed), tmp_path))
    assert (checked.row.name, checked.fits, checked.entry) == (row.name, (row.name,), "state_dict/")
    assert {"epoch", "hyper_parameters", "optimizer_states"} <= set(checked.beside)
    assert checked.prefixes == ("encoder_q.",)
    assert checked.used == len(renamed)
    assert checked.values == sum(v.numel() for v in renamed.values())
    left = {why: len(names) for why, names in checked.left_out.items()}
    assert left == {r"matches 'encoder_k\.'": len(renamed), r"matches 'heads_[qk]\.'": 6, "matches 'queue'": 2}


def test_zeros_settings_and_sizes_are_said(tmp_path: Path, rows: list[TeacherRow]) -> None:
    row = teacher_row_of("satmae-ms-vitb", rows)
    state = state_of(row)
    del state["channel_cls_embed"]
    assert check_file(saved(authors.mae(state), tmp_path)).zero == ("channel_cls_embed",)

    row = teacher_row_of("csp-fmow", rows)
    checked = check_file(saved(authors.csp({"min_radius": 0.01})(authors.under("ffn.", state_of(row))), tmp_path))
    assert checked.settings == {"params/min_radius": 0.01}
    assert checked.read_off["shortest"] == 0.01

    row = teacher_row_of("hypersigma-cls-b", rows)
    checked = check_file(saved(authors.flat(state_of(row, image=9, bands=10, classes=17)), tmp_path))
    assert {"image": 9, "bands": 10}.items() <= checked.read_off.items()
    assert checked.row.input_spec.shape == (10, 9, 9)


def test_a_file_of_another_row_is_named(tmp_path: Path, rows: list[TeacherRow]) -> None:
    csp = teacher_row_of("csp-fmow", rows)
    path = saved(authors.csp({})(authors.under("ffn.", state_of(csp))), tmp_path)
    other = teacher_row_of("seco-resnet18", rows)
    rows[:] = [csp, other]
    with pytest.raises(
        RequestError, match=r"is no checkpoint of seco-resnet18; it fits csp-fmow \(rsedge teachers csp"
    ):
        check_file(path, other.name)
    with pytest.raises(RequestError, match="nearest: csp-fmow"):
        check_file(path, "csp-fmov")


def test_no_program_is_run_and_damage_is_named(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    with pytest.raises(RequestError, match="would run code when opened"):
        check_file(saved({"state_dict": {"w": torch.ones(1)}, "x": Trap()}, tmp_path))
    assert not (tmp_path / "sprung").exists()
    path = saved({"w": torch.ones(999)}, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match="damaged"):
        check_file(path)


def test_drawn_weights_are_not_taken_for_published_ones(tmp_path: Path, rows: list[TeacherRow]) -> None:
    row = teacher_row_of("satmae-rgb-vitl", rows)
    assert check_file(saved(authors.mae(state_of(row, prefix="")), tmp_path)).drawn
    assert not check_file(saved(authors.mae(state_of(row)), tmp_path)).drawn
    # The author's network begins in the middle of what the row takes off.
    row = teacher_row_of("av-resnet18-image", rows)
    state = {f"module_list.0.{k}": v for k, v in state_of(row).items()}
    drawn_names = {k: torch.from_numpy(drawn(k, tuple(v.shape))) for k, v in state.items()}
    assert check_file(saved(authors.soundingearth("img", "snd")(drawn_names), tmp_path)).drawn


def test_outputs_go_by_the_names_of_features_and_of_what_enters_the_head(
    tmp_path: Path, rows: list[TeacherRow]
) -> None:
    row = teacher_row_of("seco-resnet18", rows)
    rows[0] = row = row.model_copy(update={"checkpoint": type(row.checkpoint)(marks=("conv1",))})
    teacher = check_file(saved(state_of(row, classes=5), tmp_path)).teacher
    image = contract_input(row.input_spec, 1)
    maps = {}
    handle = teacher.net.get_submodule("layer4").register_forward_hook(lambda m, i, o: maps.update(o=o))
    with torch.no_grad():
        logits = teacher(image)
    handle.remove()
    arrays = {"logits": logits.numpy(), "features": maps["o"].mean((2, 3)).numpy()} | kept("layer4", maps["o"].numpy())
    judged = against(teacher, Reference(tmp_path, {}, arrays))  # one sample: the fixed input's first
    assert [one.name for one in judged if one.agrees] == list(arrays)
    extra = against(teacher, Reference(tmp_path, {"image": image.numpy()}, arrays | {"decoder": np.ones((1, 2))}))
    assert [one.name for one in extra if one.missing] == ["decoder"]
    with pytest.raises(
        RequestError, match=r"none of its outputs \(decoder\) is the network's: output, features, logits, act1, layer1"
    ):
        against(teacher, Reference(tmp_path, {}, {"decoder": np.ones((1, 2))}))
    with pytest.raises(
        RequestError, match=r"'input.image' \(1, 4, 8, 8\) is none of the network's inputs: image \(samples, 3,"
    ):
        against(teacher, Reference(tmp_path, {"image": np.ones((1, 4, 8, 8))}, arrays))


def test_channels_last_are_compared_with_channels_first(tmp_path: Path, rows: list[TeacherRow]) -> None:
    row = teacher_row_of("gfm-swinb", rows)
    net = small.random_net(row)
    teacher = check_file(small.authors_file(row, net, tmp_path)).teacher
    feature = next(f for f in teacher.features if f.layout == "NHWC")
    name, seen = feature.name.removeprefix("net."), {}
    handle = teacher.net.get_submodule(name).register_forward_hook(lambda m, i, o: seen.update(o=o))
    with torch.no_grad():
        teacher(contract_input(row.input_spec, 2))
    handle.remove()
    first = seen["o"].permute(0, 3, 1, 2).numpy()
    assert all(one.agrees for one in against(teacher, Reference(tmp_path, {}, kept(name, first))))


def test_dates_are_told_by_their_shape(tmp_path: Path, rows: list[TeacherRow]) -> None:
    """The rule's name for them is another one; the images are drawn for as many samples as there are of dates."""
    row = teacher_row_of("satmae-temporal-vitl", rows)
    teacher = check_file(small.authors_file(row, small.random_net(row), tmp_path)).teacher
    dates = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[2, 2, 2], [3, 3, 3], [4, 4, 4]]])
    images = np.random.default_rng(0).standard_normal((2, *row.input_spec.shape)).astype(np.float32)
    with torch.no_grad():
        expected = teacher(torch.from_numpy(images), torch.from_numpy(dates).float()).numpy()
    (one,) = against(teacher, Reference(tmp_path, {"timestamps": dates}, {"embedding": expected}))
    assert one.agrees and one.difference < 1e-6


def test_features_are_what_enters_the_head(tmp_path: Path, rows: list[TeacherRow]) -> None:
    """Also where a part calls its output so: the logits of a fine-tuned network."""
    row = teacher_row_of("satmae-temporal-vitl", rows)
    teacher = check_file(saved(authors.mae(state_of(row, classes=5, pool="avg")), tmp_path), row.name).teacher
    part = parts_of(teacher)["encoder"]
    entered: list[torch.Tensor] = []
    handle = teacher.net.get_submodule("head").register_forward_pre_hook(lambda m, inputs: entered.append(inputs[0]))
    logits = outputs_of(part)["features"]
    handle.remove()
    inputs = {name: tensor.numpy() for name, tensor in part.inputs.items()}
    theirs = {"features": entered[0].numpy(), "logits": logits}
    assert all(one.agrees for one in against(teacher, Reference(tmp_path, inputs, theirs)))


def test_numbers_that_mean_something_are_whole_and_within_their_ends() -> None:
    spec = teacher_row("presto").input_spec
    values = contract_input(spec, 50)
    assert [spec.band_names[i] for i in meant(spec)] == ["land_cover", "month", "latitude", "longitude"]
    for number in meant(spec):
        low, high = spec.bands[number].valid_range or (0, 0)
        band = values[:, :, number]
        assert torch.equal(band, band.round()) and low <= band.min() < band.max() <= high
        assert torch.equal(band, band[:, :1].expand_as(band))
    plain = np.random.default_rng(0).standard_normal((50, *spec.shape)).astype(np.float32)
    assert np.array_equal(values[:, :, 0], plain[:, :, 0])


def test_figures_tell_another_order_of_the_same_values() -> None:
    values = np.random.default_rng(3).standard_normal((4, 20)).astype(np.float32)
    first, second = figures("a", values), figures("a", values[:, ::-1])
    assert (first.mean, first.std) == (pytest.approx(second.mean), pytest.approx(second.std))
    assert np.abs(np.subtract(first.fingerprint, second.fingerprint)).max() > 0.1
    assert not figures("a", np.array([np.nan])).finite


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input.image": np.ones((1, 2))}, "holds no output; its arrays: input.image"),
        ({"logits": np.array([[np.inf]])}, "'logits' is not finite"),
        ({"logits": np.ones((0, 3))}, "'logits' is empty"),
        ({"code": np.array("SatMAE")}, "holds no output; its arrays: none"),
    ],
)
def test_references_that_say_nothing(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(RequestError, match=message):
        read_reference(tmp_path / "x.npz")


def test_families_of_rows_are_all_there() -> None:
    """A new family is checked by the test above without being named."""
    assert {teacher_row(name).family for name in NAMES} | {"ukis"} == {row.family for row in zoo.zoo()}
    assert all(family(teacher_row(name).family) for name in NAMES)


def test_the_kit_of_the_documents_works(
    tmp_path: Path, rows: list[TeacherRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/checking.md: weights drawn under the authors' names, saved as their script does, and what their network gives."""
    row = teacher_row_of("satmae-rgb-vitl", rows)
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    assert "(2, 3, 224, 224)" in code
    monkeypatch.chdir(tmp_path)
    net = family(row.family).build(**row.arch)  # stands for the authors', which has the same names
    size = ", ".join(map(str, (2, *row.input_spec.shape)))
    exec(compile(code.replace("2, 3, 224, 224", size), DOCUMENT.name, "exec"), {"net": net})
    checked = check_file("authors.pth", row.name)
    (one,) = against(checked.teacher, read_reference("theirs.npz"))
    assert checked.drawn and one.agrees
