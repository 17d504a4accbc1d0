"""Hard views: drawn by gap and trust, the same after an interruption, and refused where there is no difference to draw by."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsedge.compress.distill.hard_views import ROUND, HardViews, differences, hard_count, trust_of
from rsedge.compress.distill.teacher_outputs import ChangedOutputs, LiveOutputs
from rsedge.compress.distill.training import DistillSettings, distill
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError

SPEC = InputSpec(
    bands=tuple(BandSpec(name=n, scale=1e-4, nodata=0, mean=0.3, std=0.2) for n in ("red", "nir")), tile=16
)
COUNT = 24


def views(i: int) -> np.ndarray:
    return np.random.default_rng([9, i]).integers(1, 8000, (2, 16, 16)).astype(np.uint16)


def teacher(dn: np.ndarray) -> dict[str, np.ndarray]:
    x = SPEC.normalise(dn)
    d = 3 * (x[:, :1] - x[:, 1:])
    return {"logits": np.concatenate([d, -d], 1).astype(np.float32)}


def student() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def drawn(made: HardViews, steps: int = 200) -> np.ndarray:
    """How often each view is drawn."""
    return np.bincount([i for s in range(steps) for i in made.draw(s, 2)], minlength=4)


def test_views_are_drawn_by_gap_times_trust_from_the_next_round_on() -> None:
    made = HardViews(4, 0, np.array([1, 1, 0.5, 0], np.float32))
    made.learn([0, 1, 2, 3], torch.tensor([0.1, 0.4, 0.8, 0.9]))
    assert drawn(made)[3] > 60, "figures of a round hold until it ends"
    made.begin(ROUND - 1)
    assert drawn(made)[3] > 60
    made.begin(ROUND)
    often = drawn(made)
    assert often[3] == 0 and 2 * often[0] < often[1] and abs(often[1] - often[2]) < 50


def test_views_not_seen_yet_count_as_the_mean_of_those_that_were() -> None:
    made = HardViews(4, 0)
    made.learn([0, 1], torch.tensor([0.0, 1.0]))
    made.begin(ROUND)
    often = drawn(made)
    assert often[0] == 0 and often[1] > often[2] > 50 < often[3]
    made.learn([0, 1, 2, 3], torch.zeros(4))
    made.begin(2 * ROUND)
    assert drawn(made).min() > 60, "nothing differs: alike"


def test_differences_are_those_of_probabilities() -> None:
    one, other = torch.tensor([[9.0, -9], [9, -9]]), torch.tensor([[9.0, -9], [-9, 9]])
    assert differences(one, other, "classes").tolist() == pytest.approx([0, 1], abs=1e-4)
    maps = differences(one[..., None, None].expand(2, 2, 3, 3), other[..., None, None].expand(2, 2, 3, 3), "classes")
    assert maps.tolist() == pytest.approx([0, 1], abs=1e-4)
    assert differences(one, other, "labels").tolist() == pytest.approx([0, 1], abs=1e-3)


def test_trust_is_the_teachers_agreement_with_itself_and_is_kept(tmp_path: Path) -> None:
    asked: list[int] = []

    def unchanged(i: int) -> np.ndarray | None:
        asked.append(i)
        return {0: None, 1: views(1), 2: views(2)[::-1].copy()}[i]

    source, file = LiveOutputs(views, teacher, SPEC.normalise, 3), tmp_path / "cache" / "trust.npz"
    found = trust_of(source, unchanged, teacher, "classes", file, "key")
    assert found[0] == 1 and found[1] == pytest.approx(1) and found[2] < 0.6
    assert np.array_equal(trust_of(source, unchanged, teacher, "classes", file, "key"), found)
    assert asked == [0, 1, 2]
    trust_of(source, unchanged, teacher, "classes", file, "another teacher")
    assert asked == [0, 1, 2] * 2


def test_an_interrupted_run_draws_the_same_views_and_changes(tmp_path: Path) -> None:
    settings = DistillSettings(
        steps=2 * ROUND + 10, batch=6, checkpoint_every=ROUND + 7, hard_views=0.5, autocast="off"
    )
    read: list[list[int]] = []

    def change(dn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (dn * rng.uniform(0.5, 1)).astype(dn.dtype)

    class Source(LiveOutputs):
        def rows(self, indices):  # type: ignore[no-untyped-def]
            read.append(list(indices))
            return super().rows(indices)

    source = ChangedOutputs(Source(views, teacher, SPEC.normalise, COUNT), change, 1)
    whole, _ = distill(source, student(), settings, tmp_path / "a", 1)
    batches = [b for b in read if len(b) == 6]
    assert sum(len(set(b[3:]) & set(b[:3])) for b in batches) > 0, "hard ones are drawn beside those in turn"

    def stop(step: int, _total: int, _parts: dict[str, float]) -> None:
        if step == 2 * ROUND + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(source, student(), settings, tmp_path / "b", 1, on_step=stop)
    again, _ = distill(source, student(), settings, tmp_path / "b", 1)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_outputs_without_a_difference_to_draw_by_are_refused(tmp_path: Path) -> None:
    settings = DistillSettings(steps=2, batch=2, hard_views=0.5, loss="values")
    with pytest.raises(RequestError, match=r"steps\.distill\.hard_views: .* these outputs are 'values'; leave it out"):
        distill(LiveOutputs(views, teacher, SPEC.normalise, 4), student(), settings, tmp_path, 0)


@pytest.mark.parametrize(
    ("share", "batch", "hard"), [(0.0, 16, 0), (0.02, 16, 1), (0.1, 4, 1), (0.5, 8, 4), (0.99, 8, 7)]
)
def test_a_share_that_is_asked_for_is_never_rounded_to_none(share: float, batch: int, hard: int) -> None:
    assert hard_count(share, batch) == hard


def test_batches_without_room_for_a_hard_view_are_refused(tmp_path: Path) -> None:
    settings = DistillSettings(steps=2, batch=1, hard_views=0.5)
    with pytest.raises(
        RequestError, match=r"steps\.distill\.hard_views: a batch of 1 has no room .* steps\.distill\.batch: 2"
    ):
        distill(LiveOutputs(views, teacher, SPEC.normalise, 4), student(), settings, tmp_path, 0)
