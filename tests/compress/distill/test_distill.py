"""Distillation on a small task: it learns, resumes to the same weights, and reads a cache as it reads live outputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.compress.distill.box_loss import box_loss
from rsedge.compress.distill.statistics import OutputStatistics, statistics_of
from rsedge.compress.distill.teacher_outputs import LiveOutputs
from rsedge.compress.distill.training import DistillSettings, Tap, _Training, distill
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import MissingCapability, RequestError

SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0, mean=0.3, std=0.2) for n in ("red", "nir")), tile=16
)


def views(i: int) -> np.ndarray:
    return np.random.default_rng([9, i]).integers(1, 8000, (2, 16, 16)).astype(np.uint16)


def teacher(x: np.ndarray) -> dict[str, np.ndarray]:
    """Classes by the sign of band differences, and the difference itself as a feature."""
    d = x[:, :1] - x[:, 1:]
    return {"logits": np.concatenate([2 * d, -2 * d, 0 * d], 1).astype(np.float32), "difference": d.astype(np.float32)}


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))


def ask(dn: np.ndarray) -> dict[str, np.ndarray]:
    return teacher(SPEC.normalise(dn))


def ask_vectors(dn: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float32) for name, value in vector_teacher(SPEC.normalise(dn)).items()}


def live(count: int = 32) -> LiveOutputs:
    return LiveOutputs(views, ask, SPEC.normalise, count)


def agreement(net: nn.Module) -> float:
    x, out = live().batch(range(100, 116))
    with torch.inference_mode():
        return float((net(torch.from_numpy(x)).argmax(1).numpy() == out["logits"].argmax(1)).mean())


def test_the_student_learns_the_teacher(tmp_path: Path) -> None:
    before = agreement(student().eval())
    best, record = distill(live(), student(), DistillSettings(steps=120, batch=8, lr=1e-2), tmp_path, seed=0)
    assert agreement(best) > 0.93 > before
    assert record.steps == 120 and len(record.history) == 12


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    # Two runs may time bf16 differently, and then do not compute alike.
    settings = DistillSettings(steps=30, batch=8, checkpoint_every=10, validate_every=5, autocast="off",
                               taps=(Tap("difference", "2", 0.1),))  # fmt: skip
    score = lambda net: {"score": agreement(net)}  # noqa: E731
    whole, record = distill(live(), student(), settings, tmp_path / "a", 1, score)

    def stop(step: int, _total: int, _parts: dict[str, float]) -> None:
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(live(), student(), settings, tmp_path / "b", 1, score, stop)
    assert (tmp_path / "b" / "resume.safetensors").exists()
    seen: list[int] = []
    again, record_b = distill(live(), student(), settings, tmp_path / "b", 1, score, lambda s, *_: seen.append(s))
    assert seen[0] == 11
    assert record_b.validation == record.validation
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not (tmp_path / "b" / "resume.safetensors").exists()


class _Dropping(nn.Module):
    """A student whose layers draw: dropout of channels, and whole paths of a batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)
        self.drop = nn.Dropout2d(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(torch.relu(self.first(x)))
        keep = torch.rand(len(x), 1, 1, 1) > 0.3 if self.training else torch.ones(())
        return self.head(x + keep * self.second(x))  # type: ignore[no-any-return]


def test_a_killed_run_of_a_student_with_dropout_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = DistillSettings(steps=30, batch=8, checkpoint_every=10, autocast="off")
    whole, _ = distill(live(), _Dropping(), settings, tmp_path / "a", 1)

    def stop(step: int, _total: int, _parts: dict[str, float]) -> None:
        if step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(live(), _Dropping(), settings, tmp_path / "b", 1, on_step=stop)
    torch.rand(12345)  # another process stands elsewhere in its stream
    again, _ = distill(live(), _Dropping(), settings, tmp_path / "b", 1)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other, _ = distill(live(), _Dropping(), settings, tmp_path / "c", 2)
    assert not torch.equal(other.first.weight, whole.first.weight)  # type: ignore[arg-type]


def test_training_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    net = _Dropping()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    distill(live(), net, DistillSettings(steps=3, batch=8), tmp_path, 1)
    assert torch.equal(torch.rand(4), expected)


def test_statistics_are_taken_once_kept_with_the_record_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(source: LiveOutputs) -> dict[str, OutputStatistics]:
        taken.append(source.count)
        return statistics_of(source)

    def stop(step: int, *_: object) -> None:
        if step == 17:
            raise KeyboardInterrupt

    monkeypatch.setattr("rsedge.compress.distill.training.statistics_of", counted)
    settings = DistillSettings(steps=20, batch=8, checkpoint_every=10, taps=(Tap("difference", "2"),))
    with pytest.raises(KeyboardInterrupt):
        distill(live(), student(), settings, tmp_path, 1, on_step=stop)
    _, record = distill(live(), student(), settings, tmp_path, 1)
    assert taken == [32] and record.statistics == statistics_of(live())
    _, plain = distill(live(), student(), DistillSettings(steps=3, batch=8, balance=0.0), tmp_path / "b", 1)
    assert taken == [32] and not plain.statistics


@pytest.mark.parametrize("batch", [1, 16])
def test_values_and_taps_are_learned_by_any_batch(tmp_path: Path, batch: int) -> None:
    source = LiveOutputs(views, ask_vectors, SPEC.normalise, 32)
    torch.manual_seed(0)
    settings = DistillSettings(steps=200, batch=batch, lr=5e-3, loss="values", taps=(Tap("wide", "embedding", 0.5),))
    _, record = distill(source, _Pooled(), settings, tmp_path, 0)
    first, last = record.history[0]["loss"], np.mean([h["loss"] for h in record.history[-5:]])
    assert first < 1e3 and last < 0.3 * first


def test_a_resumed_run_keeps_the_precision_that_was_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DistillSettings(steps=12, batch=8, checkpoint_every=5, autocast="bf16")
    whole, _ = distill(live(), student(), settings, tmp_path / "a", 1)

    def timed(faster: bool) -> None:
        monkeypatch.setattr(_Training, "_time_pass", lambda _self, _x, _out, dtype: float(faster is (dtype is None)))

    def stop(step: int, *_: object) -> None:
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr("rsedge.compress.distill.training._has_bf16", lambda _device: True)
    auto = replace(settings, autocast="auto")
    timed(faster=True)
    with pytest.raises(KeyboardInterrupt):
        distill(live(), student(), auto, tmp_path / "b", 1, on_step=stop)
    timed(faster=False)
    again, record = distill(live(), student(), auto, tmp_path / "b", 1)
    assert record.autocast == "bf16"
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 10:
            raise KeyboardInterrupt

    base = DistillSettings(steps=20, batch=8, checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        distill(live(), student(), base, tmp_path, 1, on_step=stop)
    seen: list[int] = []
    distill(live(), student(), DistillSettings(steps=20, batch=8, checkpoint_every=5, lr=1e-3), tmp_path, 1,
            on_step=lambda s, *_: seen.append(s))  # fmt: skip
    assert seen[0] == 1


def test_early_stop(tmp_path: Path) -> None:
    settings = DistillSettings(steps=100, batch=8, validate_every=5, patience=2)
    scores = iter([0.5, 0.4, 0.3, 0.9])
    _, record = distill(live(), student(), settings, tmp_path, 0, lambda _: {"score": next(scores)})
    assert record.stopped_early and record.steps == 15 and record.best_step == 5


def test_cuda_without_a_gpu_is_a_missing_capability(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MissingCapability, match="device: cpu"):
        distill(live(), student(), DistillSettings(device="cuda"), tmp_path, 0)


def test_unknown_taps_are_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'9'"):
        distill(live(), student(), DistillSettings(taps=(Tap("difference", "9"),)), tmp_path, 0)
    with pytest.raises(RequestError, match="difference"):
        distill(live(), student(), DistillSettings(taps=(Tap("other", "2"),)), tmp_path, 0)


class _Pooled(nn.Module):
    """(N, 2, 16, 16) -> three logits from five pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.embedding, self.head = nn.Linear(2, 5), nn.Identity(), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding(self.embed(x.mean((2, 3)))))  # type: ignore[no-any-return]


def vector_teacher(x: np.ndarray) -> dict[str, np.ndarray]:
    pooled = x.mean((2, 3))
    wide = pooled @ np.random.default_rng(0).normal(size=(2, 7))
    return {"logits": pooled @ np.ones((2, 3)), "wide": wide, "maps": x}


def test_vectors_are_tapped_too(tmp_path: Path) -> None:
    source = LiveOutputs(views, ask_vectors, SPEC.normalise, 32)
    torch.manual_seed(0)
    settings = DistillSettings(steps=150, batch=16, lr=2e-2, taps=(Tap("wide", "embedding", 1.0),))
    _, record = distill(source, _Pooled(), settings, tmp_path, 0)
    first, last = (record.history[i]["tap:embedding"] for i in (0, -1))
    assert last < 0.5 * first


def test_a_loss_of_nan_boxes_is_said_by_the_training_loop() -> None:
    grid = torch.tensor([[4.0, 4.0, 8.0]])
    found = torch.full((1, 1, 6), torch.nan, requires_grad=True)
    taught = torch.tensor([[[0.0, 0.0, 8.0, 8.0, 1.0, 1.0]]])
    assert torch.isnan(box_loss(found, taught, grid))


class _NanBackward(torch.autograd.Function):
    """As a processor whose bf16 kernels give NaN: right forward, no gradient."""

    @staticmethod
    def forward(context: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: object, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * torch.nan


class _Broken(nn.Module):
    def __init__(self, only_bf16: bool) -> None:
        super().__init__()
        self.net, self.only_bf16 = student(), only_bf16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.net(x)
        broken = not self.only_bf16 or torch.is_autocast_enabled("cpu")
        return _NanBackward.apply(found) if broken else found  # type: ignore[no-any-return, no-untyped-call]


def test_bf16_without_gradients_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsedge.compress.distill.training._has_bf16", lambda device: True)
    _, record = distill(live(), _Broken(True), DistillSettings(steps=3, batch=4), tmp_path, 0)
    assert record.autocast == "off"


@pytest.mark.parametrize(("autocast", "way"), [("off", r"lower steps\.distill\.lr"), ("bf16", r"autocast: off")])
def test_gradients_that_are_no_numbers_stop_with_a_way_out(tmp_path: Path, autocast: str, way: str) -> None:
    settings = DistillSettings(steps=3, batch=4, autocast=autocast)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=rf"steps\.distill: the gradients are not finite at step 0; .*{way}"):
        distill(live(), _Broken(False), settings, tmp_path, 0)
