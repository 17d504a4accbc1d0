"""What runs between parts, on parts that are functions of NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rsedge.data.errors import RequestError
from rsedge.data.metrics.figures import statistics_of
from rsedge.runtimes.parts import Tensors
from rsedge.runtimes.session import Array, Arrays
from rsedge.runtimes.wholes.sampling import picture
from rsedge.runtimes.wholes.table import WHOLES, whole_of

F32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Numpy:
    """A part in NumPy."""

    inputs: Tensors
    outputs: tuple[str, ...]
    function: Callable[..., Any]

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        assert set(inputs) == set(self.inputs)
        for name, (shape, dtype) in self.inputs.items():
            assert inputs[name].shape == shape and inputs[name].dtype == dtype, name
        found = self.function(**inputs)
        return dict(zip(self.outputs, found if isinstance(found, tuple) else (found,), strict=True))


def tensors(**shapes: tuple[int, ...]) -> Tensors:
    return {name: (shape, F32) for name, shape in shapes.items()}


def tower(edge: int) -> Numpy:
    return Numpy(tensors(dn=(1, edge)), ("vector",), lambda dn: dn[:, :2])


SEGMENTS = {
    "encoder": Numpy(tensors(dn=(1, 2, 4, 4)), ("embedding",), lambda dn: dn.sum(1, keepdims=True)),
    "decoder": Numpy(
        tensors(embedding=(1, 1, 4, 4), points=(1, 3, 2)), ("masks", "quality"),
        lambda embedding, points: (embedding[:, None] * points[:, :, :1, None, None], points[..., :1]),
    ),
}  # fmt: skip


def test_masks_take_prompts_beside_the_image_and_lose_batch_axes() -> None:
    whole = whole_of("prompted-masks", list(SEGMENTS), {})
    assert whole.inputs(SEGMENTS) == {"dn": ((2, 4, 4), F32), "points": ((3, 2), F32)}
    rng = np.random.default_rng(0)
    dn, points = rng.normal(size=(2, 4, 4)).astype(F32), rng.normal(size=(3, 2)).astype(F32)
    found = whole.run(SEGMENTS, {"dn": dn, "points": points})
    assert {name: value.shape for name, value in found.items()} == {"masks": (3, 4, 4), "quality": (3, 1)}
    np.testing.assert_allclose(found["masks"], dn.sum(0) * points[:, 0, None, None], rtol=1e-5)


def test_agreement_of_masks_is_their_mean_intersection_over_union() -> None:
    whole = whole_of("prompted-masks", list(SEGMENTS), {})
    mask = np.full((1, 2, 2), -1.0)
    mask[0, 0] = 1
    half = mask.copy()
    half[0, 0, 1] = -1
    empty = np.full((1, 2, 2), -1.0)
    groups = np.array(["a", "b", "c"])
    found = statistics_of(
        *whole.comparisons(
            [{"masks": mask}, {"masks": half}, {"masks": empty}],
            [{"masks": mask}, {"masks": mask}, {"masks": empty}],
            groups,
        )
    )
    assert found["agreement"].value == pytest.approx(0.75)  # 1 and 1/2; what both leave empty does not count


def test_the_nearest_item_is_told_by_rank_and_against_the_teacher() -> None:
    parts = {"image": tower(4), "place": tower(2)}
    whole = whole_of("retrieval", ["image", "place"], {})
    assert whole.inputs(parts) == {"image": ((4,), F32), "place": ((2,), F32)}
    right = [{"image": v, "place": v} for v in np.eye(2, 2)]
    swapped = [{"image": a["image"], "place": b["place"]} for a, b in zip(right, right[::-1], strict=True)]
    groups = np.array(["a", "b"])
    good, bad = (statistics_of(*whole.comparisons(own, right, groups)) for own in (right, swapped))
    assert (good["recall1"].value, good["mrr"].value, good["agreement"].value) == (1, 1, 1)
    assert (bad["recall1"].value, bad["mrr"].value, bad["agreement"].value) == (0, 0.5, 0)


def test_equal_items_do_not_count_as_found() -> None:
    whole = whole_of("retrieval", ["image", "place"], {})
    same = [{"image": np.ones(2), "place": np.ones(2)} for _ in range(4)]
    found = statistics_of(*whole.comparisons(same, same, np.array(list("abcd"))))
    assert found["recall1"].value == 0


SAMPLER = {"betas": "linear", "beta_start": 1e-3, "beta_end": 2e-2, "times": 50, "steps": 4}
DIFFUSION = {
    "text": Numpy(tensors(words=(1, 2)), ("text",), lambda words: 2 * words),
    "step": Numpy(
        tensors(latent=(1, 1, 3, 3), time=(1,), text=(1, 2)), ("noise",),
        lambda latent, time, text: latent * np.float32(0.5) + text.mean() + time * np.float32(1e-3),
    ),
    "decoder": Numpy(tensors(latent=(1, 1, 3, 3)), ("image",), lambda latent: np.concatenate([latent, -latent], 1)),
}  # fmt: skip


def test_a_picture_is_that_of_the_sampler_at_the_samples_seed() -> None:
    whole = whole_of("sampled-picture", list(DIFFUSION), {"sampler": SAMPLER})
    assert whole.inputs(DIFFUSION) == {"words": ((2,), F32), "seed": ((), np.dtype(np.int64))}
    words = np.array([0.25, 0.5], F32)
    found = whole.run(DIFFUSION, {"words": words, "seed": np.int64(3)})["image"]
    wanted = picture(
        lambda latent, time: latent * np.float32(0.5) + 2 * words.mean() + np.float32(time) * np.float32(1e-3),
        lambda latent: np.concatenate([latent, -latent], 1),
        whole.settings.sampler, (1, 1, 3, 3), 3,
    )  # fmt: skip
    np.testing.assert_allclose(found, wanted[0], rtol=1e-5, atol=1e-6)
    other = whole.run(DIFFUSION, {"words": words, "seed": np.int64(4)})["image"]
    assert np.abs(found - other).max() > 0.1


def test_guidance_asks_for_what_it_leads_away_from() -> None:
    parts = {name: DIFFUSION[name] for name in ("step", "decoder")}
    guided = whole_of("sampled-picture", list(parts), {"sampler": {**SAMPLER, "guidance": 3.0}})
    assert set(guided.inputs(parts)) == {"text", "text_without", "seed"}
    plain = whole_of("sampled-picture", list(parts), {"sampler": SAMPLER})
    text = np.array([1, 1], F32)
    same = guided.run(parts, {"text": text, "text_without": text, "seed": np.int64(0)})["image"]
    np.testing.assert_allclose(
        same, plain.run(parts, {"text": text, "seed": np.int64(0)})["image"], rtol=1e-4, atol=1e-5
    )
    led = guided.run(parts, {"text": text, "text_without": 0 * text, "seed": np.int64(0)})["image"]
    assert np.abs(led - same).max() > 0.1


def test_parts_that_look_at_the_latent_run_before_every_step() -> None:
    calls: list[str] = []

    def counted(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def function(**inputs: Array) -> Any:
            calls.append(name)
            return answer(**inputs)

        return function

    parts = {
        "text": Numpy(tensors(words=(1, 2)), ("text",), counted("text", lambda words: 2 * words)),
        "control": Numpy(
            tensors(latent=(1, 1, 3, 3), text=(1, 2)), ("control",),
            counted("control", lambda latent, text: latent * np.float32(0.1) + text.mean()),
        ),
        "scaled": Numpy(tensors(control=(1, 1, 3, 3)), ("scaled",), counted("scaled", lambda control: 3 * control)),
        "step": Numpy(
            tensors(latent=(1, 1, 3, 3), time=(1,), scaled=(1, 1, 3, 3)), ("noise",),
            lambda latent, time, scaled: latent * np.float32(0.5) + scaled,
        ),
        "decoder": DIFFUSION["decoder"],
    }  # fmt: skip
    whole = whole_of("sampled-picture", list(parts), {"sampler": SAMPLER})
    assert whole.inputs(parts) == {"words": ((2,), F32), "seed": ((), np.dtype(np.int64))}
    words = np.array([0.25, 0.5], F32)
    found = whole.run(parts, {"words": words, "seed": np.int64(3)})["image"]
    assert calls == ["text", *["control", "scaled"] * 4]
    wanted = picture(
        lambda latent, time: latent * np.float32(0.8) + 6 * words.mean(),
        lambda latent: np.concatenate([latent, -latent], 1),
        whole.settings.sampler, (1, 1, 3, 3), 3,
    )  # fmt: skip
    np.testing.assert_allclose(found, wanted[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parts", "settings", "words"),
    [
        ("prompted-mask", ["a"], {}, "prompted-masks"),
        ("retrieval", ["a"], {}, "two towers"),
        ("sampled-picture", ["a"], {"sampler": SAMPLER}, "a denoiser, then a decoder"),
        ("sampled-picture", ["a", "b"], {"sampler": SAMPLER, "stepz": 1}, "stepz"),
        ("sampled-picture", ["a", "b"], {"sampler": {**SAMPLER, "steps": 0}}, "sampler.steps"),
    ],
)
def test_what_does_not_fit_is_named(name: str, parts: list[str], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        whole_of(name, parts, settings)


def test_parts_that_do_not_go_together_are_named() -> None:
    flat = {**SEGMENTS, "decoder": Numpy(tensors(embedding=(1, 1, 4, 4)), ("logits",), lambda embedding: embedding)}
    with pytest.raises(RequestError, match="must give 'masks'"):
        whole_of("prompted-masks", list(flat), {}).inputs(flat)
    unlike = {**SEGMENTS, "encoder": Numpy(tensors(dn=(1, 2), points=(1, 9, 2)), ("embedding",), lambda dn, points: dn)}
    with pytest.raises(RequestError, match="takes 'points'"):
        whole_of("prompted-masks", list(unlike), {}).inputs(unlike)


def test_every_row_of_the_table_loads() -> None:
    assert all(row.load().task for row in WHOLES.values())


def test_prompts_that_fill_a_sample_up_have_empty_masks() -> None:
    """They would agree with the teacher's at no merit."""
    decoder = Numpy(
        tensors(embedding=(1, 1, 4, 4), labels=(1, 3, 2)), ("masks",), lambda embedding, labels: np.ones((1, 3, 4, 4), np.float32)
    )  # fmt: skip
    labels = np.array([[1, -1], [-1, -1], [0, 1]], np.float32)
    whole = whole_of("prompted-masks", ["encoder", "decoder"], {})
    found = whole.run(
        {"encoder": SEGMENTS["encoder"], "decoder": decoder}, {"dn": np.ones((2, 4, 4), np.float32), "labels": labels}
    )
    assert [bool((mask > 0).any()) for mask in found["masks"]] == [True, False, True]
    (compared,) = whole.comparisons([found], [found], np.array(["a"]))
    assert compared.details == {"masks": 3, "empty": 1}
