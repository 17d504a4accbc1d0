"""SatCLIP's location encoder: real spherical harmonics of longitude and latitude, then a small sine network (SIREN).

Sources: Klemmer et al. (2023), "SatCLIP"; Russwurm et al. (2024), "Geographic location encoding with spherical harmonics and
sinusoidal representation networks".

The harmonics come from a recursion over degrees, all orders at once, with constant tables and in float32 only. The published
tables have their zonal terms (order 0) larger by pi than orthonormal harmonics (satclip issue 33: a missing
parenthesis), and the published weights were trained with that; ``zonal`` reproduces it.

The authors evaluate polynomials that were expanded and printed with 15 digits. Those cancel: at 40 degrees their harmonics are off
by 1e-3 at 52 degrees of latitude and by 0.6 at the poles, and the published weights were trained on that too. What rounding the
coefficients does is linear in the exact harmonics of the same order, so it is folded into the first layer when an authors' file
is loaded (:func:`printed`); the graph stays the same, in float32 and without cancelling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, vectors

SMALLEST_SINE = 1e-12
"""At the poles; a power of exactly 0 is not a number where powers are computed through logarithms."""


class SphericalHarmonics(nn.Module):
    """Degrees longitude and latitude (N, 2) -> real harmonics (N, degrees ** 2), ordered by degree l, then order -l to l.

    The angles are longitude + 180 and latitude + 90. Without Condon-Shortley phase; orthonormal but for the factor ``zonal``
    on order 0. Within 1e-5 of float64 up to 40 degrees, poles included.
    """

    keep: Tensor
    drop: Tensor
    start: Tensor
    scale: Tensor
    parity: Tensor
    orders: Tensor
    sign: Tensor
    legendre_index: Tensor
    azimuth_index: Tensor

    def __init__(self, degrees: int, zonal: float = math.pi) -> None:
        super().__init__()
        self.degrees = degrees
        keep, drop, scale = recursion(degrees)
        order = np.arange(degrees)
        pairs = [(n, m) for n in range(degrees) for m in range(-n, n + 1)]
        tables = {
            "keep": keep,
            "drop": drop,
            "start": np.eye(degrees),
            "scale": scale * np.where(order == 0, zonal, math.sqrt(2)),
            "parity": (-1.0) ** (order[:, None] + order).ravel(),
            "orders": order,
            "sign": (-1.0) ** order,
            "legendre_index": np.array([n * degrees + abs(m) for n, m in pairs]),
            # The azimuth is the cosines of all orders, then the sines.
            "azimuth_index": np.array([abs(m) + (degrees if m < 0 else 0) for _, m in pairs]),
        }
        for name, table in tables.items():
            kind = torch.int64 if name.endswith("index") else torch.float32
            self.register_buffer(name, torch.tensor(table, dtype=kind), persistent=False)

    def forward(self, degrees: Tensor) -> Tensor:
        legendre, azimuth = self._legendre(degrees[:, 1:2]), self._azimuth(degrees[:, :1])
        return legendre.index_select(1, self.legendre_index) * azimuth.index_select(1, self.azimuth_index)

    def _legendre(self, latitude: Tensor) -> Tensor:
        """Normalised associated Legendre functions (N, degrees ** 2): a row of all orders per degree."""
        polar = (90 - latitude.abs()) * (math.pi / 180)
        half = torch.sin(polar / 2)
        depth = 2 * half * half
        starts = torch.sin(polar).clamp(min=SMALLEST_SINE) ** self.orders
        value = starts * self.start[0]
        step = torch.zeros_like(value)
        rows = [value * self.scale[0]]
        for n in range(1, self.degrees):
            step = self.keep[n] * step - self.drop[n] * depth * value
            value = value + step + starts * self.start[n]
            rows.append(value * self.scale[n])
        south = torch.cat(rows, dim=1)
        return torch.where(latitude > 0, south * self.parity, south)

    def _azimuth(self, longitude: Tensor) -> Tensor:
        """Cosines, then sines, of order times (longitude + 180): (N, 2 * degrees). A half turn is a sign; angles stay small."""
        angles = longitude * (math.pi / 180) * self.orders
        return torch.cat([torch.cos(angles) * self.sign, torch.sin(angles) * self.sign], dim=1)


def recursion(degrees: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tables (degree n, order m), float64: what stays of the last step, what is taken off, and the scale.

    Let Q(n, m) be the associated Legendre function divided by its leading factor at the pole, where Q = sine ** m. With
    t = 1 - cosine, the recursion ``(n - m) P(n) = (2n - 1) x P(n-1) - (n + m - 1) P(n-2)`` becomes one for the differences,
    ``Q(n) - Q(n-1) = keep * (Q(n-1) - Q(n-2)) - drop * t * Q(n-1)``, which loses no digits near the poles (after Reinsch).
    """
    keep, drop, scale = (np.zeros((degrees, degrees)) for _ in range(3))
    for m in range(degrees):
        leading = sum(math.log(2 * i - 1) for i in range(1, m + 1))
        for n in range(m, degrees):
            if n > m:
                keep[n, m], drop[n, m] = (n - 1 - m) / (n + m), (2 * n - 1) / (n + m)
                leading += math.log((n + m) / (n - m))
            norm = math.log((2 * n + 1) / (4 * math.pi)) + math.lgamma(n - m + 1) - math.lgamma(n + m + 1)
            scale[n, m] = math.exp(leading + norm / 2)
    return keep, drop, scale


DIGITS = 15
"""Of the coefficients in the authors' generated file."""


@cache
def printed(degrees: int) -> np.ndarray:
    """What the authors' expanded polynomials make of exact harmonics: a matrix (degrees ** 2, degrees ** 2), float64.

    Each printed polynomial is written in the exact ones of its order; all in fractions, since that is where digits would cancel.
    Left out is what evaluating them in float64 adds, a few per cent of it.
    """
    matrix = np.eye(degrees**2)
    _, _, scale = recursion(degrees)
    for m in range(degrees):
        exact = {n: _coefficients(n, m) for n in range(m, degrees)}
        leading = {n: scale[n, m] / float(_at_pole(exact[n])) for n in exact}
        for n, coefficients in exact.items():
            for k, share in _in_exact(_rounded(n, m, coefficients), exact, m).items():
                for sign in {-m, m}:
                    matrix[n * n + n + sign, k * k + k + sign] += float(share) * leading[n] / leading[k]
    return matrix


Polynomial = Mapping[int, Fraction]
"""Power of the cosine -> coefficient."""


def _coefficients(n: int, m: int) -> Polynomial:
    """The m-th derivative of the Legendre polynomial of degree n."""
    found = {}
    for k in range((n - m) // 2 + 1):
        power = n - 2 * k
        legendre = Fraction((-1) ** k * math.comb(n, k) * math.comb(n + power, n), 2**n)
        found[power - m] = legendre * Fraction(math.factorial(power), math.factorial(power - m))
    return found


def _rounded(n: int, m: int, coefficients: Polynomial) -> dict[int, Fraction]:
    """What printing adds to the coefficients. Those of order 0 are printed with their scale, the others without."""
    scale = math.sqrt((2 * n + 1) / 4) * math.sqrt(math.pi) if m == 0 else 1.0
    exact = Fraction(scale)
    return {p: Fraction(f"{scale * float(c):.{DIGITS - 1}e}") / exact - c for p, c in coefficients.items()}


def _in_exact(rest: dict[int, Fraction], exact: Mapping[int, Polynomial], m: int) -> dict[int, Fraction]:
    """A polynomial as a sum of the exact ones, from the highest degree down."""
    found = {}
    for power in sorted(rest, reverse=True):
        degree = power + m
        found[degree] = rest[power] / exact[degree][power]
        for p, c in exact[degree].items():
            rest[p] -= found[degree] * c
    return found


def _at_pole(polynomial: Polynomial) -> Fraction:
    return sum(polynomial.values(), Fraction(0))


class Sine(nn.Linear):
    """A linear layer that is followed by ``sin(frequency * x)``, or by nothing where there is no frequency."""

    def __init__(self, inputs: int, outputs: int, frequency: float | None) -> None:
        super().__init__(inputs, outputs)
        spread = 1 / inputs if frequency == FIRST_FREQUENCY else math.sqrt(6 / inputs)
        with torch.no_grad():
            self.weight.uniform_(-spread, spread)
            self.bias.uniform_(-spread, spread)
        self.frequency = frequency


FIRST_FREQUENCY = 30.0


class Siren(nn.Module):
    """(N, inputs) -> (N, dim) through ``depth`` sine layers of one width."""

    def __init__(self, inputs: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        self.layers = nn.ModuleList(
            Sine(a, b, FIRST_FREQUENCY if i == 0 else 1.0) for i, (a, b) in enumerate(pairwise(sizes))
        )
        self.last_layer = Sine(width, dim, None)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(layer.frequency * layer(x))
        return self.last_layer(x)  # type: ignore[no-any-return]


class LocationEncoder(nn.Module):
    """Degrees longitude, latitude (N, 2) -> embedding (N, dim).

    Args:
        degrees: of the harmonics (10 or 40 in the published files): degrees ** 2 features.
        harmonics: that an authors' file is taken to be trained on: ``expanded`` polynomials, as the published ones, or ``exact``.
    """

    def __init__(
        self,
        degrees: int,
        width: int = 512,
        depth: int = 2,
        dim: int = 256,
        harmonics: Literal["expanded", "exact"] = "expanded",
    ) -> None:
        super().__init__()
        self.trained_on = harmonics
        self.harmonics = SphericalHarmonics(degrees)
        self.nnet = Siren(degrees**2, width, depth, dim)

    def forward(self, degrees: Tensor) -> Tensor:
        return self.nnet(self.harmonics(degrees))  # type: ignore[no-any-return]


def loaded(net: nn.Module) -> None:
    """Folds what printing did to the harmonics into the first layer."""
    assert isinstance(net, LocationEncoder)
    if net.trained_on == "exact":
        return
    first = net.nnet.layers[0]
    assert isinstance(first, Sine)
    with torch.no_grad():
        first.weight.copy_(first.weight.double() @ torch.from_numpy(printed(net.harmonics.degrees)))


def features(net: nn.Module, shape: Shape) -> Features:
    """The harmonics, and each layer before its sine."""
    assert isinstance(net, LocationEncoder)
    layers = [(f"nnet.layers.{i}", net.nnet.last_layer.in_features) for i in range(len(net.nnet.layers))]
    return vectors(("harmonics", net.harmonics.degrees**2), *layers)


FAMILY = Family(LocationEncoder, features=features, loaded=loaded)
