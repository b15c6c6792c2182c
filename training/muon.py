"""Muon: momentum whose matrices are made orthogonal before they are applied (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

Updates have the size that AdamW's have (Liu et al. 2025, arXiv 2502.16982), so one learning rate serves both: Muon for every matrix and
convolution inside the network, AdamW for vectors and for the first and last layer.
"""

from __future__ import annotations

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients and five rounds: Jordan's


def product_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where products of it are native; a CPU that has AVX2 alone emulates it, ten times slower than float32."""
    has = torch.cpu.get_capabilities()
    is_native = torch.device(device).type != "cpu" or has.get("avx512_bf16") or has.get("amx_bf16")
    return torch.bfloat16 if is_native else torch.float32


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """(n, rows, columns) to nearly orthogonal ones: the same singular vectors, singular values near 1."""
    a, b, c = NEWTON_SCHULZ
    is_tall = x.shape[1] > x.shape[2]
    y = x.mT if is_tall else x
    y = (y / (y.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(product_dtype(x.device))
    for _ in range(5):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return (y.mT if is_tall else y).float()


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; a convolution (out, in, ...) counts as a matrix (out, in * ...)."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), parameters in alike.items():
                momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
                gradients = [p.grad for p in parameters]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
                updates = orthogonal(torch.stack([x.reshape(rows, columns) for x in ahead]))
                size = 0.2 * max(rows, columns) ** 0.5
                for p, update in zip(parameters, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(p), alpha=-group["lr"] * size)
