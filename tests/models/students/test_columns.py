"""What students make of columns: what is missing does not matter, and angles go round."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsedge.data.errors import RequestError
from rsedge.models.students import build_student, contract_arguments
from rsedge.models.students.columns import Columns
from tests.models.students.small_students import small_arguments, small_contract

SPEC = small_contract("series-conv", "TC")
SERIES = {}
for _name in ("series-transformer", "series-conv"):
    torch.manual_seed(0)
    SERIES[_name] = build_student(_name, small_arguments(_name, SPEC)).eval()
MISSING = 65535 / 10_000


def series(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    x = torch.rand(1, *SPEC.shape)
    x[..., 3] = torch.arange(6.0)
    x[..., 4:] = (x[:, :1, 4:] - 0.5) * 100
    return x


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), turns=st.sampled_from([12.0, -12.0, 24.0]), name=st.sampled_from(sorted(SERIES)))
def test_a_month_a_year_later_is_the_same_month(seed: int, turns: float, name: str) -> None:
    x = series(seed)
    later = x.clone()
    later[..., 3] += turns
    later[..., 5] += 30 * turns
    with torch.inference_mode():
        torch.testing.assert_close(SERIES[name](later), SERIES[name](x), atol=1e-4, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99), frame=st.integers(0, 5), error=st.floats(-5e-4, 5e-4), name=st.sampled_from(sorted(SERIES))
)
def test_a_missing_value_is_masked_however_it_was_rounded(seed: int, frame: int, error: float, name: str) -> None:
    """Half precision rounds 6.5535 by up to 5e-4 of it; without the mask such a value would show in the output."""
    x = series(seed)
    x[0, frame, 1] = MISSING
    rounded = x.clone()
    rounded[0, frame, 1] = MISSING * (1 + error)
    seen = x.clone()
    seen[0, frame, 1] = 6.0
    with torch.inference_mode():
        found = SERIES[name](x)
        assert torch.equal(SERIES[name](rounded), found)
        assert not torch.allclose(SERIES[name](seen), found, atol=1e-6)


@pytest.mark.parametrize("name", sorted(SERIES))
def test_a_series_with_nothing_in_it_gives_finite_numbers(name: str) -> None:
    x = series(0)
    x[..., :3] = MISSING
    with torch.inference_mode():
        assert torch.isfinite(SERIES[name](x)).all()


def test_features_are_what_they_say() -> None:
    columns = Columns(3, [None, 9.0, None], [[2, 1.0, 0.0]]).eval()
    features, present = columns(torch.tensor([[[5.0, 9.0, 0.5], [5.0, 2.0, 0.5]]]))
    expected = torch.tensor([[0.0, 5.0, 0.4794, 0.8776, 0.0], [2.0, 5.0, 0.4794, 0.8776, 1.0]])
    torch.testing.assert_close(features[0], expected, atol=2e-4, rtol=1e-4)
    assert present is not None and present.tolist() == [[0.0, 1.0]]
    with pytest.raises(RequestError, match="do not fit 3 columns"):
        Columns(3, [None, 9.0], ())


def test_places_have_no_seam() -> None:
    spec = small_contract("place-mlp", "C")
    kwargs = contract_arguments("place-mlp", spec, 4)
    assert [a[0] for a in kwargs["angles"]] == [1, 0]  # latitude is the second column here
    net = build_student("place-mlp", kwargs).eval()
    with torch.inference_mode():
        east, west = net(torch.tensor([[180.0, 40.0]])), net(torch.tensor([[-180.0, 40.0]]))
        pole = net(torch.tensor([[0.0, 90.0], [90.0, 90.0]]))
    torch.testing.assert_close(east, west, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(pole[0], pole[1], atol=1e-3, rtol=1e-3)
    with pytest.raises(RequestError, match="takes latitude and longitude"):
        build_student("place-mlp", {"bands": 3, "classes": 4})
