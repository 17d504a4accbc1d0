"""Training under simulated rounding: it helps, it is undone cleanly, and it is repeatable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rsedge.compress.prune.pruning import LatencyEstimate, PruneHooks, PruneSettings, PruneTarget, prune
from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.ptq import PtqSettings, quantize
from rsedge.compress.quantize.qat import QatSettings, _RoundedInput, edge_layers, qat, quantizable_layers, simulated
from rsedge.compress.quantize.qdq import quantize_onnx
from rsedge.data.errors import RequestError
from rsedge.models.structure import tensors_digest
from tests.compress.prune.estimates import by_estimates
from tests.compress.real_tiles import (
    TILE,
    Deployable,
    classes_of,
    normalised,
    openvino_model,
    real_tiles,
    trained_student,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiles() -> list[Any]:
    return real_tiles(12)


@pytest.fixture(scope="module")
def net(tiles: list[Any]) -> nn.Module:
    return trained_student(tiles)


def rough(net: nn.Module) -> nn.Module:
    """The same function with very unequal channels, which 8-bit ranges of whole tensors serve badly."""
    uneven = copy.deepcopy(net)
    factor = torch.logspace(-2.2, 0, 8)[torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    norm: Any = uneven.get_submodule("stem.1")
    readers: list[Any] = [uneven.get_submodule("encoder.0.0.0"), uneven.get_submodule("decoder.1.0")]
    with torch.no_grad():
        norm.weight *= factor
        norm.bias *= factor
        readers[0].weight /= factor[None, :, None, None]
        readers[1].weight[:, -8:] /= factor[None, :, None, None]
    return uneven


def distillation(teacher: nn.Module, x: Tensor) -> Callable[[nn.Module, int], Tensor]:
    with torch.no_grad():
        goal = teacher(x)

    def loss(module: nn.Module, step: int) -> Tensor:
        pick = torch.arange(step * 4, step * 4 + 4) % len(x)
        return nn.functional.mse_loss(module(x[pick]), goal[pick])

    return loss


def limit(score: float, max_drop: float) -> Limit:
    return Limit(Acceptance(score=score), max_drop)


def scored(score: Callable[[nn.Module], float]) -> Callable[[nn.Module], Acceptance]:
    return lambda module: Acceptance(score=score(module))


def deployed_agreement(net: nn.Module, tiles: list[Any]) -> Callable[[nn.Module], float]:
    """Agreement with the float network on this host's 8-bit executable."""
    reference = classes_of(openvino_model(net), tiles)
    return lambda m: float(np.mean(classes_of(quantize(openvino_model(m), tiles, PtqSettings()), tiles) == reference))


def test_training_mends_what_quantization_broke(net: nn.Module, tiles: list[Any]) -> None:
    broken, x = rough(net), normalised(tiles)
    torch.testing.assert_close(broken(x), net(x), atol=1e-3, rtol=1e-3)
    before = tensors_digest(broken)
    trained, record = qat(
        broken, [x], distillation(net, x), scored(deployed_agreement(net, tiles)), limit(1.0, 0.08),
        QatSettings(steps=45, score_every=45, lr=1e-3),
    )  # fmt: skip
    assert tensors_digest(broken) == before
    assert record.best > 0
    best = max(p.score for p in record.points)
    assert best > record.points[0].score
    assert deployed_agreement(net, tiles)(trained) == pytest.approx(best)
    assert list(trained.state_dict()) == list(broken.state_dict())
    torch.export.export(trained, (torch.zeros(1, 6, TILE, TILE),))


def test_simulation_rounds_and_leaves_no_trace(net: nn.Module, tiles: list[Any]) -> None:
    work, x = copy.deepcopy(net), normalised(tiles)
    digest, plain = tensors_digest(work), work(x).detach()
    with simulated(work, [x], QatSettings()) as rounded:
        seen = rounded(x)
        weight: Any = rounded.get_submodule("stem.0").weight
        assert len(torch.unique(weight[0])) <= 127
        assert not torch.equal(seen, plain)
        assert (seen.argmax(1) == plain.argmax(1)).float().mean() > 0.9
        seen.sum().backward()
    assert tensors_digest(work) == digest
    assert torch.equal(work(x), plain)
    assert all(type(m).__module__ != "torch.nn.utils.parametrize" for m in work.modules())
    assert not any(m._forward_pre_hooks for m in work.modules())
    with pytest.raises(KeyboardInterrupt), simulated(work, [x], QatSettings()):
        raise KeyboardInterrupt
    assert tensors_digest(work) == digest and torch.equal(work(x), plain)


class LastFirst(nn.Module):
    """Layers are made in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem, self.middle = nn.Linear(4, 2), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.middle(self.stem(x)).mean((2, 3)))
        return y


def test_layers_at_the_edges_stay_in_float_as_calibration_left_them() -> None:
    module, x = LastFirst(), torch.randn(1, 3, 8, 8)
    assert edge_layers(module, x, "none") == ()
    assert edge_layers(module, x, "first") == ("stem",) and edge_layers(module, x, "last") == ("head",)
    assert edge_layers(module, x, "first-last") == ("stem", "head")
    assert not any(m._forward_pre_hooks for m in module.modules())
    with simulated(module, [x], QatSettings(float_layers=("stem", "head"))):
        rounded = [n for n, m in module.named_modules() if torch.nn.utils.parametrize.is_parametrized(m)]
    assert rounded == ["middle"]


def test_simulated_matches_the_executable(net: nn.Module, tiles: list[Any]) -> None:
    """The simulated network decides as the quantized executable does, nearly everywhere."""
    work = copy.deepcopy(net)
    with simulated(work, [normalised(tiles)], QatSettings()), torch.no_grad():
        simulated_classes = work(normalised(tiles)).argmax(1).numpy()
    executed = classes_of(quantize(openvino_model(net), tiles, PtqSettings(bias_correction="full")), tiles)
    assert np.mean(simulated_classes == executed) > 0.93


def input_steps(net: nn.Module) -> dict[str, float]:
    """Size of a step of each layer's rounded input, as simulated."""
    hooks = {name: h for name, m in net.named_modules() for h in m._forward_pre_hooks.values()}
    return {name: h.steps()[1] for name, h in hooks.items() if isinstance(h, _RoundedInput)}


def file_steps(path: Path) -> dict[str, float]:
    """Scale of the quantizer that feeds each convolution of an explicit INT8 file."""
    graph = onnx.load(str(path)).graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    made = {o: n for n in graph.node for o in n.output}
    feeding = {n.name: made.get(n.input[0]) for n in graph.node if n.op_type == "Conv"}
    return {
        name: float(stored[q.input[1]])
        for name, q in feeding.items()
        if q is not None and q.op_type == "DequantizeLinear"
    }


def prefixes(name: str) -> list[str]:
    """What of a layer's name the exporter repeats: containers of plain modules start anew."""
    parts = name.split(".")
    block = next((i for i, p in enumerate(parts) if p.startswith("conv")), None)
    ways = [parts] if block is None else [parts[:block], parts[block:]]
    return [".".join(way) for way in ways]


def openvino_steps(model: Any) -> dict[int, float]:
    """As :func:`file_steps` of an OpenVINO graph, by place among the layers."""
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in ("Convolution", "GroupConvolution")]
    feeding = [(i, op.input_value(0).get_node()) for i, op in enumerate(layers)]
    found = {}
    for i, q in feeding:
        if q.get_type_name() == "FakeQuantize":
            low, high = (float(q.input_value(k).get_node().get_data().ravel()[0]) for k in (1, 2))
            found[i] = (high - low) / (q.get_attributes()["levels"] - 1)
    return found


def test_the_simulated_grid_is_that_of_an_explicit_int8_file(net: nn.Module, tiles: list[Any], tmp_path: Path) -> None:
    source, target = tmp_path / "f32.onnx", tmp_path / "int8.onnx"
    torch.onnx.export(
        Deployable(net).eval(), (torch.ones(1, 6, TILE, TILE),), str(source), opset_version=17, input_names=["dn"],
        output_names=["logits", "valid"], dynamo=False,
    )  # fmt: skip
    quantize_onnx(source, target, tiles)
    real = file_steps(target)
    x = normalised(tiles)
    with simulated(copy.deepcopy(net), [x[i : i + 4] for i in range(0, 12, 4)], QatSettings(activations="signed")) as m:
        mine = input_steps(m)
    # The exporter writes encoder.0.1.conv1.0 as /net/encoder.0/encoder.0.1/conv1/conv1.0/Conv.
    pairs = [(mine[n], s) for n in mine for name, s in real.items() if set(prefixes(n)) <= set(name.split("/"))]
    assert len(pairs) >= 7
    for simulated_step, real_step in pairs:
        assert simulated_step == pytest.approx(real_step, rel=0.02)


@pytest.mark.parametrize("preset", ["performance", "mixed"])
def test_the_simulated_grid_is_openvinos(net: nn.Module, tiles: list[Any], preset: Any) -> None:
    real = openvino_steps(quantize(openvino_model(net), tiles, PtqSettings(preset=preset)))
    x = normalised(tiles)
    with simulated(copy.deepcopy(net), [x[i : i + 4] for i in range(0, 12, 4)], QatSettings(activations=preset)) as m:
        mine = list(input_steps(m).values())
    assert len(real) >= 7
    for place, real_step in real.items():
        assert mine[place] == pytest.approx(real_step, rel=0.02)


def test_same_seed_same_weights_and_early_stop(net: nn.Module, tiles: list[Any]) -> None:
    x = normalised(tiles)

    def noisy(module: nn.Module, step: int) -> Tensor:
        out: Tensor = (module(x[:2]) * torch.rand(1)).square().mean()
        return out

    scores = [iter([0.9, 0.8, 0.95, 0.7, 0.6, 0.5, 0.4]) for _ in range(2)]
    chosen = QatSettings(steps=12, score_every=2, patience=2)
    runs = [
        qat(net, [x], noisy, scored(lambda m, s=s: next(s)), limit(0.96, 0.02), chosen)  # type: ignore[misc]
        for s in scores
    ]
    assert tensors_digest(runs[0][0]) == tensors_digest(runs[1][0]) != tensors_digest(net)
    record = runs[0][1]
    assert [p.step for p in record.points] == [0, 2, 4, 6, 8]
    assert record.best == 4 and record.stopped_early and record.outcome == "applied"


def test_no_gain_keeps_the_network(net: nn.Module, tiles: list[Any]) -> None:
    x = normalised(tiles)
    scores = iter([0.5, 0.4])
    kept, record = qat(
        net,
        [x],
        distillation(net, x),
        scored(lambda m: next(scores)),
        limit(0.9, 0.01),
        QatSettings(steps=2, score_every=2),
    )
    assert record.outcome == "rejected" and record.best == 0
    assert tensors_digest(kept) == tensors_digest(net)


def test_bad_requests(net: nn.Module, tiles: list[Any]) -> None:
    x = normalised(tiles)
    with pytest.raises(RequestError, match="no calibration"):
        qat(net, [], distillation(net, x), scored(lambda m: 1.0), limit(1.0, 0.1))
    with pytest.raises(RequestError, match="no layer 'nowhere'"):
        quantizable_layers(net, ["nowhere"])
    with pytest.raises(RequestError, match="lower qat"):
        qat(net, [x], lambda m, s: m(x[:1]).mean() * float("nan"), scored(lambda m: 1.0), limit(1.0, 0.1))


def test_pruned_networks_train_too(net: nn.Module, tiles: list[Any]) -> None:
    x = normalised(tiles)

    def latency(module: nn.Module) -> LatencyEstimate:
        return LatencyEstimate(ms=sum(p.numel() for p in module.parameters()), low=0, high=1e9, provenance="predicted")

    hooks = PruneHooks(
        score=lambda m: 1.0,
        latency=latency,
        compare=by_estimates(latency),
        recover=lambda m, s: None,
    )
    target = PruneSettings(target=PruneTarget(params_ratio=0.6), steps=1, importance="magnitude")
    pruned, _ = prune(net, torch.zeros(1, 6, TILE, TILE), target, hooks)
    trained, record = qat(
        pruned, [x], distillation(net, x), scored(lambda m: 0.0), limit(0.0, 0.0), QatSettings(steps=2, score_every=1)
    )
    assert record.outcome == "applied"
    assert trained(x[:1]).shape == (1, 3, TILE, TILE)
