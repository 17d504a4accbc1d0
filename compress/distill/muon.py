"""Muon: momentum whose step is made orthogonal, for hidden matrices (:mod:`.hidden`); AdamW for everything else.

Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks", with the step size of Liu et al. (2025),
"Muon is scalable for LLM training", so that learning rates mean what they mean for AdamW. Distilling small U-Nets it needs a
third of AdamW's steps. ``torch.optim.Muon`` takes matrices only and works in bfloat16, which most flight and desk CPUs emulate
twenty times slower; here kernels are flattened and float32 stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
# Quintic iteration that brings all singular values near 1 within five rounds.
_A, _B, _C, _ROUNDS = 3.4445, -4.7750, 2.0315, 5
_ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Orthogonal momentum for parameters of two or more dimensions, seen as matrices (outputs, everything else)."""

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
                nesterov = p.grad.lerp(state["momentum"], MOMENTUM)
                update = orthogonal(nesterov.reshape(len(p), -1))
                size = _ADAMW_RMS * max(update.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest half-orthogonal matrix, roughly: (M, N) -> (M, N) with singular values between 0.7 and 1.2."""
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


OptimizerKind = Literal["muon", "adamw"]


class Optimizers:
    """Muon for hidden matrices, AdamW for stems, heads, tables, norms and biases, driven as one optimizer.

    Args:
        hidden: which parameters are hidden matrices (:func:`rsedge.compress.distill.hidden.hidden_matrices`).
        kind: ``adamw`` leaves Muon out. Its products of whole weight matrices cost as much as some thousand rows of a batch, which
            wide layers that see small inputs do not earn back.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        lr: float,
        weight_decay: float,
        hidden: Iterable[nn.Parameter] = (),
        kernel_rate: float = 2.0,
        kind: OptimizerKind = "muon",
    ) -> None:
        params = [p for m in modules for p in m.parameters()]
        by_muon = {id(p) for p in hidden} if kind == "muon" else set()
        kernels = [p for p in params if id(p) in by_muon]
        thin = [p for p in params if p.ndim > 1 and id(p) not in by_muon]
        plain = [p for p in params if p.ndim <= 1]
        groups = [{"params": thin, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._lr, self._kernel_rate = lr, kernel_rate
        self._all: list[torch.optim.Optimizer] = [torch.optim.AdamW([g for g in groups if g["params"]], lr=lr)]
        if kernels:
            self._all.append(Muon(kernels, lr * kernel_rate, weight_decay))

    def rate(self, share: float) -> None:
        """Sets the learning rates to this share of their peak."""
        for optimizer in self._all:
            peak = self._lr * (self._kernel_rate if isinstance(optimizer, Muon) else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = peak * share

    def step(self) -> None:
        """Updates all parameters and drops their gradients."""
        for optimizer in self._all:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors, for a checkpoint."""
        return {
            f"{n}/{i}/{k}": v.clone().contiguous()
            for n, optimizer in enumerate(self._all)
            for i, slots in optimizer.state_dict()["state"].items()
            for k, v in slots.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what :meth:`tensors` gave."""
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self._all]
        for name, value in tensors.items():
            n, i, slot = name.split("/")
            states[int(n)].setdefault(int(i), {})[slot] = value
        for optimizer, state in zip(self._all, states, strict=True):
            full: dict[str, Any] = {**optimizer.state_dict(), "state": state}
            optimizer.load_state_dict(full)
