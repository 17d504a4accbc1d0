"""Outputs of teachers that are not logits of every class: turned back, or refused with what mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.answers import Answer, check_candidates, check_logits, last_function, named_classes, seen_in
from rsedge.models.outside import loading as outside
from rsedge.models.outside.loading import load_outside

SPEC = InputSpec(bands=tuple(BandSpec(name=n) for n in ("red", "nir")), tile=32)


class Ending(nn.Module):
    """A map of ``channels`` through a function of the graph that no module stands for."""

    def __init__(self, channels: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.function = nn.Conv2d(2, channels, 3, padding=1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.body(x) * 4)


def written(net: nn.Module, path: Path) -> str:
    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, 2, 32, 32),),
        path,
        dynamo=True,
        verbose=False,
        input_names=["x"],
        output_names=["y"],
    )
    return f"onnx:{path}"


@given(st.lists(st.floats(-12, 12), min_size=2, max_size=5), st.sampled_from(["softmax", "sigmoid"]))
def test_probabilities_turned_back_give_the_same_probabilities(values: list[float], inside: str) -> None:
    logits = torch.tensor([values], dtype=torch.float64)
    function = (lambda z: z.softmax(1)) if inside == "softmax" else torch.sigmoid
    back = Answer(inside).logits(function(logits))  # type: ignore[arg-type]
    assert torch.allclose(function(back), function(logits), atol=1e-6)


@given(st.floats(-12, 12))
def test_one_channel_is_two_classes_and_the_second_wins_above_one_half(z: float) -> None:
    found = Answer(binary=True).logits(torch.tensor([[z]], dtype=torch.float64))
    assert found.shape == (1, 2) and torch.allclose(found.softmax(1)[0, 1], torch.sigmoid(torch.tensor(z).double()))


@pytest.mark.parametrize("inside", ["softmax", "sigmoid"])
def test_probabilities_of_half_precision_give_finite_logits(inside: Literal["softmax", "sigmoid"]) -> None:
    raw = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=torch.bfloat16)
    assert Answer(inside).logits(raw).isfinite().all()


@pytest.mark.parametrize("function", [lambda z: z, torch.sigmoid], ids=["logit", "sigmoid"])
def test_a_binary_map_of_an_onnx_file_is_a_map_of_two_classes(
    function: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    inner = Ending(1, function)
    net, row = load_outside(written(inner, tmp_path / "one.onnx"), SPEC, ("water",))
    assert row.task == "segmentation" and row.classes == ("background", "water")
    x = torch.randn(1, 2, 32, 32)
    shares = torch.sigmoid(inner.body(x) * 4)
    assert torch.allclose(net(x).softmax(1)[:, 1:], shares, atol=1e-4)
    assert load_outside(written(inner, tmp_path / "one.onnx"), SPEC, ("land", "water"))[1].classes == ("land", "water")
    with pytest.raises(RequestError, match=r"one channel, a binary map, but 3 classes are named; .*\[land, water\]"):
        load_outside(written(inner, tmp_path / "one.onnx"), SPEC, ("a", "b", "c"))


def test_one_channel_of_another_library_is_a_binary_map(tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    net = smp.create_model("unet", "resnet18", None, in_channels=2, classes=1).eval()
    torch.save(net.state_dict(), tmp_path / "s.pth")
    found, row = load_outside("smp:unet/resnet18", SPEC, ("flood",), tmp_path / "s.pth")
    x = torch.randn(1, 2, 32, 32)
    assert row.classes == ("background", "flood") and found(x).shape == (1, 2, 32, 32)
    assert torch.equal(found(x).argmax(1)[:, None] == 1, net(x) > 0)


def test_class_numbers_are_refused_by_the_graph_and_by_the_values(tmp_path: Path) -> None:
    numbers = Ending(3, lambda z: z.argmax(1, keepdim=True).float())
    with pytest.raises(RequestError, match=r"class numbers \(ArgMax inside\).*export it without its last ArgMax"):
        load_outside(written(numbers, tmp_path / "n.onnx"), SPEC, ("a", "b", "c"))
    with pytest.raises(RequestError, match="class numbers"):
        seen_in(np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4) % 3, "x")
    both = onnx.load(tmp_path / "n.onnx")
    before = next(n.input[0] for n in both.graph.node if n.op_type == "ArgMax")
    both.graph.output.append(onnx.helper.make_tensor_value_info(before, 1, (1, 3, 32, 32)))
    onnx.save(both, tmp_path / "both.onnx")
    with pytest.raises(RequestError, match="take the output before it: ") as refused:
        load_outside(f"onnx:{tmp_path / 'both.onnx'}#y", SPEC, ("a", "b", "c"))
    advice = str(refused.value).rpartition("take the output before it: ")[2]
    assert load_outside(advice, SPEC, ("a", "b", "c"))[1].classes == ("a", "b", "c")


def test_probabilities_without_a_softmax_in_the_graph_are_seen_by_their_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = Ending(3, lambda z: z.exp() / z.exp().sum(1, keepdim=True))
    net, _ = load_outside(written(inner, tmp_path / "p.onnx"), SPEC, ("a", "b", "c"))
    x = torch.randn(1, 2, 32, 32)
    assert net(x).min() < 0 and torch.allclose(net(x).softmax(1), inner(x), atol=1e-4)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("axes", "said"), [((2,), "rows"), ((3,), "columns"), ((1, 2, 3), "alike"), ((2, 3), "places")]
)
def test_a_softmax_over_another_axis_than_the_classes_is_refused(
    axes: tuple[int, ...], said: str, log: bool, tmp_path: Path
) -> None:
    def ending(z: Tensor) -> Tensor:
        shares = z - z.logsumexp(axes, keepdim=True)
        return shares if log else shares.exp()

    with pytest.raises(RequestError, match=rf"add up to 1 over .*{said}.*export it with the softmax over axis 1"):
        load_outside(written(Ending(3, ending), tmp_path / "a.onnx"), SPEC, ("a", "b", "c"))


def test_a_graph_that_ends_in_a_softmax_of_another_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="add up to 1 over columns, not over classes"):
        load_outside(written(Ending(3, lambda z: z.softmax(3)), tmp_path / "w.onnx"), SPEC, ("a", "b", "c"))
    with pytest.raises(RequestError, match="gives 1 everywhere, as a softmax over one channel does"):
        load_outside(written(Ending(1, lambda z: z.softmax(1)), tmp_path / "one.onnx"), SPEC, ("water",))
    rng = np.random.default_rng(0)
    vectors = np.exp(rng.normal(size=(4, 3))).astype(np.float32)
    with pytest.raises(RequestError, match="add up to 1 over images"):
        seen_in(vectors / vectors.sum(0), "x")
    assert seen_in(vectors / vectors.sum(1, keepdims=True), "x") == "softmax"


def test_a_softmax_inside_does_not_hide_a_sigmoid_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.weigh = nn.Conv2d(2, 1, 3, padding=1), nn.Softmax(-1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            return torch.sigmoid(y + (y * self.weigh(y)).sum(-1, keepdim=True))

    torch.manual_seed(0)
    net = Attending().eval()
    monkeypatch.setitem(outside.LOADERS, "transformers", lambda name, spec, classes, arch: net)
    found, row = load_outside("transformers:x", SPEC, ("water",))
    x = torch.randn(1, 2, 32, 32)
    assert row.classes == ("background", "water") and torch.equal(found(x).argmax(1)[:, None] == 1, net(x) > 0.5)


def test_what_is_not_finite_is_refused_and_vectors_between_0_and_1_stay_logits() -> None:
    with pytest.raises(RequestError, match="gives NaN or infinity"):
        seen_in(np.array([[np.nan, 0.2]], np.float32), "x")
    assert seen_in(np.array([[0.2, 0.7], [0.3, 0.6]], np.float32), "x") == "logits"
    assert seen_in(np.array([[0.2, 0.8], [0.7, 0.3]], np.float32), "x") == "softmax"
    assert named_classes(("a", "b"), Answer(), "x") == ("a", "b")


def test_the_last_module_tells_too() -> None:
    assert last_function(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid(), nn.Identity())) == "sigmoid"
    assert last_function(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1))) == "softmax"
    assert last_function(nn.Sequential(nn.Sigmoid(), nn.Conv2d(1, 1, 1))) == "logits"


def test_a_network_of_another_size_is_our_error(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("vit_tiny_patch16_224", in_chans=2, num_classes=2)
    torch.save(net.state_dict(), tmp_path / "v.pth")
    with pytest.raises(
        RequestError, match=r"pos_embed.*positions are those of images of 224 pixels: set teacher\.input\.tile to 224"
    ):
        load_outside("timm:vit_tiny_patch16_224", SPEC, ("a", "b"), tmp_path / "v.pth")
    fitting = SPEC.model_copy(update={"tile": 224})
    assert (
        load_outside("timm:vit_tiny_patch16_224", fitting, ("a", "b"), tmp_path / "v.pth")[1].task == "classification"
    )


class _Gated(nn.Module):
    """Its last module by name is a sigmoid that runs in the middle; what comes out are logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.gate = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 1), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.head(y * self.gate(y)) * 9


def test_a_last_module_that_is_not_the_last_to_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = _Gated().eval()
    assert last_function(net) == "sigmoid"
    monkeypatch.setitem(outside.LOADERS, "transformers", lambda name, spec, classes, arch: net)
    found, _ = load_outside("transformers:x", SPEC, ("land", "water"))
    x = torch.randn(1, 2, 32, 32)
    assert torch.equal(found(x), net(x))


def test_outputs_on_the_data_are_what_they_are_taken_for() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    check_logits(logits, "teacher")
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    with pytest.raises(RequestError, match=r"probabilities on the data .as of a softmax.*without its last softmax"):
        check_logits(shares, "teacher")
    boxes = np.concatenate([rng.uniform(0, 32, (1, 9, 4)), rng.uniform(0, 1, (1, 9, 2))], -1).astype(np.float32)
    check_candidates(boxes, "teacher", 1)
    with pytest.raises(RequestError, match=r"boxes\.oriented: 'teacher' gives no angles .*; leave it out"):
        check_candidates(boxes, "teacher", 1, oriented=True)
    wide = np.concatenate([boxes, np.full((1, 9, 2), -1, np.float32)], -1)
    check_candidates(wide, "teacher", 1, oriented=True)
    with pytest.raises(RequestError, match=r"boxes\.oriented: 'teacher' gives turned boxes .*; set it"):
        check_candidates(wide, "teacher", 1)
    boxes[0, 3, 5] = 4
    with pytest.raises(RequestError, match=r"scores of .* to 4 on the data.*behind its sigmoid"):
        check_candidates(boxes, "teacher", 1)
    boxes[0, 3, 0] = np.nan
    with pytest.raises(RequestError, match="NaN or infinity"):
        check_candidates(boxes, "teacher", 1)


@pytest.mark.parametrize("times", [100.0, 255.0])
def test_probabilities_in_percent_or_bytes_are_refused(times: float) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (1, 3, 8, 8))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) * times
    for values in (shares, np.floor(shares), np.rint(shares)):
        with pytest.raises(RequestError, match="probabilities times"):
            seen_in(values.astype(np.float32), "x")
    assert seen_in(np.abs(logits * 50).astype(np.float32), "x") == "logits"


@pytest.mark.parametrize(
    ("channels", "end", "classes", "said"),
    [
        (3, lambda z: z.permute(0, 2, 3, 1), ("a", "b", "c"), "classes come last"),
        (1, lambda z: z.sigmoid().squeeze(1), ("a",), "keeps its axis of classes"),
        (3, lambda z: nn.functional.avg_pool2d(z, 4), ("a", "b", "c"), "maps of 8x8 for its tile of 32.*with a resize"),
    ],
)
def test_maps_whose_axes_stand_otherwise_get_advice(
    tmp_path: Path, channels: int, end: Callable[[Tensor], Tensor], classes: tuple[str, ...], said: str
) -> None:
    name = written(Ending(channels, end), tmp_path / "net.onnx")
    with pytest.raises(RequestError, match=said):
        load_outside(name, SPEC, classes)
