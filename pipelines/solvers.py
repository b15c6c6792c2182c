"""Solvers: ways to walk from noise down to a picture, one function each.

A solver sees the model only as denoise(x, sigma), which predicts the noise-free x0 from x = x0 + sigma * noise. It walks a
falling list of sigmas and calls denoise once or twice a step. The ODE that all of them follow is
dx/dsigma = (x - x0) / sigma (Karras et al. 2022, arXiv 2206.00364, equation 1 at constant scale); the stochastic ones also
put noise back: noise(sigma, lower) is unit normal.

The sigmas are 0-d tensors throughout, so that their float32 roundings are ComfyUI's; float64 sigmas give float64 precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]  # (x, sigma) -> prediction of x0, shaped like x
Noise = Callable[[Tensor, Tensor], Tensor]  # (sigma, lower sigma) -> unit normal noise for that step, shaped like x


def _line(x: Tensor, x0: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """From sigma to target along the ODE's solution for an x0 that stays as it is: a straight line towards x0. This is
    Euler's step in sigma and, the same thing, the first-order exponential step of DPM-Solver++ in ln(sigma)."""
    return x0 + (x - x0) * (target / sigma)


def _middle(sigma: Tensor, target: Tensor) -> Tensor:
    """Half-way in ln(sigma)."""
    return torch.lerp(sigma.log(), target.log(), 0.5).exp()


def _split(sigma: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """(down, up): go down to `down` by the ODE, then add noise of `up` to be at `lower` again, down^2 + up^2 = lower^2.
    The variances are those of DDPM's posterior (Ho et al. 2020, arXiv 2006.11239). In float32, and so in ComfyUI, `down` is 0
    already where `lower` is some sigma / 4 000; euler_ancestral and dpm_2_ancestral then take x0 as it is, without noise."""
    up = torch.minimum(lower, (lower**2 * (sigma**2 - lower**2) / sigma**2).sqrt())
    return (lower**2 - up**2).sqrt(), up


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler's method, one call a step, order 1; with these variables it is DDIM (Song et al. 2021, arXiv 2010.02502)."""
    for sigma, lower in pairwise(sigmas):
        x = _line(x, denoise(x, float(sigma)), sigma, lower)
    return x


def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler's step to `down`, then noise: ancestral sampling as in DDPM (Ho et al. 2020, arXiv 2006.11239)."""
    for sigma, lower in pairwise(sigmas):
        down, up = _split(sigma, lower)
        x = _line(x, denoise(x, float(sigma)), sigma, down)
        if down > 0:
            x = x + noise(sigma, lower) * up
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Heun's method, the mean of the slopes at both ends, order 2 (Karras et al. 2022, algorithm 1)."""
    for sigma, lower in pairwise(sigmas):
        x0 = denoise(x, float(sigma))
        end = _line(x, x0, sigma, lower)
        if lower > 0:
            slopes = (x - x0) / sigma + (end - denoise(end, float(lower))) / lower
            end = x + slopes / 2 * (lower - sigma)
        x = end
    return x


def _midpoint(denoise: Denoise, x: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """One step of the midpoint rule, with the middle taken in ln(sigma); straight to x0 where target is 0."""
    x0 = denoise(x, float(sigma))
    if target == 0:
        return _line(x, x0, sigma, target)
    middle = _middle(sigma, target)
    x_middle = _line(x, x0, sigma, middle)
    return x + (x_middle - denoise(x_middle, float(middle))) / middle * (target - sigma)


def dpm_2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """The midpoint rule, two calls a step, order 2, after DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927)."""
    for sigma, lower in pairwise(sigmas):
        x = _midpoint(denoise, x, sigma, lower)
    return x


def dpm_2_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """The same to `down`, then noise."""
    for sigma, lower in pairwise(sigmas):
        down, up = _split(sigma, lower)
        x = _midpoint(denoise, x, sigma, down)
        if down > 0:
            x = x + noise(sigma, lower) * up
    return x


def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Linear multistep (Adams-Bashforth of order 4 on uneven steps) on the slopes, as in PLMS (Liu et al. 2022, arXiv
    2202.09778). It starts with orders 1, 2, 3."""
    past: list[tuple[float, Tensor]] = []  # (sigma, slope), newest first
    for sigma, lower in pairwise(sigmas):
        x0 = denoise(x, float(sigma))
        past = [(float(sigma), (x - x0) / sigma), *past[:3]]
        if lower == 0:
            x = x0
        else:
            weights = _adams_weights([s for s, _ in past], float(lower))
            x = x + sum(weight * slope for weight, (_, slope) in zip(weights, past, strict=True))
    return x


def _adams_weights(past: Sequence[float], lower: float) -> list[float]:
    """Integrals from past[0] to `lower` of the Lagrange polynomials through at most four sigmas. They are cubic at most,
    for which Gauss's rule with two points is exact."""
    half = (lower - past[0]) / 2
    points = [past[0] + half * (1 + side / math.sqrt(3)) for side in (-1, 1)]

    def lagrange(j: int, at: float) -> float:
        return math.prod((at - s) / (past[j] - s) for k, s in enumerate(past) if k != j)

    return [half * sum(lagrange(j, at) for at in points) for j in range(len(past))]


def dpmpp_2s_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2S) to `down`, then noise (Lu et al. 2022, arXiv 2211.01095, algorithm 1 with r = 1/2)."""
    for sigma, lower in pairwise(sigmas):
        down, up = _split(sigma, lower)
        x0 = denoise(x, float(sigma))
        if down > 0:
            middle = _middle(sigma, down)
            x0 = denoise(_line(x, x0, sigma, middle), float(middle))
        x = _line(x, x0, sigma, down)
        if lower > 0:
            x = x + noise(sigma, lower) * up
    return x


def dpmpp_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """The same two calls a step, but on the SDE: both the middle and the end get noise, from one Brownian path. The
    SDE is that of arXiv 2211.01095, the two-stage step is k-diffusion's."""
    for sigma, lower in pairwise(sigmas):
        x0 = denoise(x, float(sigma))
        if lower == 0:
            x = x0
        else:
            middle = _middle(sigma, lower)
            down, up = _split(sigma, middle)
            x_middle = _line(x, x0, sigma, down) + noise(sigma, middle) * up
            down, up = _split(sigma, lower)
            x = _line(x, denoise(x_middle, float(middle)), sigma, down) + noise(sigma, lower) * up
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M): x0 is carried half a step ahead by its last two values, order 2 (arXiv 2211.01095, algorithm 2)."""
    last = step = None
    for sigma, lower in pairwise(sigmas):
        x0 = ahead = denoise(x, float(sigma))
        last_step, step = step, sigma.log() - lower.log()
        if last is not None and lower > 0:
            ahead = x0 + (x0 - last) * (step / last_step / 2)
        x, last = _line(x, ahead, sigma, lower), x0
    return x


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """SDE-DPM-Solver++(2M) (arXiv 2211.01095): the same for the SDE, in which x0 gets a share of 1 - (lower / sigma)^2."""
    last = step = None
    for sigma, lower in pairwise(sigmas):
        x0 = ahead = denoise(x, float(sigma))
        last_step, step = step, sigma.log() - lower.log()
        if last is not None and lower > 0:
            ahead = x0 + (x0 - last) * (step / last_step / 2)
        x, last = ahead + (x - ahead) * (lower / sigma) ** 2, x0
        if lower > 0:
            x = x + noise(sigma, lower) * lower * (-torch.expm1(-2 * step)).sqrt()
    return x


def dpmpp_3m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """The same with a parabola in ln(sigma) through the last three x0. Its curvature counts half, as in k-diffusion and in
    diffusers' third-order multistep solver; 2 * curve would be exact."""
    past: list[tuple[Tensor, Tensor]] = []  # (step that followed, x0), newest first
    for sigma, lower in pairwise(sigmas):
        x0 = denoise(x, float(sigma))
        x = x0 + (x - x0) * (lower / sigma) ** 2
        if lower > 0:
            step = sigma.log() - lower.log()
            phi_2 = torch.expm1(-2 * step) / (2 * step) + 1
            if past:
                ratio = past[0][0] / step
                slope = (x0 - past[0][1]) / ratio
            if len(past) == 2:
                ratio_2 = past[1][0] / step
                curve = (slope - (past[0][1] - past[1][1]) / ratio_2) / (ratio + ratio_2)
                slope = slope + curve * ratio
                x = x - curve * (phi_2 / (2 * step) - 0.5)
            if past:
                x = x + slope * phi_2
            x = x + noise(sigma, lower) * lower * (-torch.expm1(-2 * step)).sqrt()
            past = [(step, x0), *past[:1]]
    return x


def lcm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Multistep consistency sampling: all the way to x0, then fresh noise (Luo et al. 2023, arXiv 2310.04378)."""
    for sigma, lower in pairwise(sigmas):
        x = denoise(x, float(sigma))
        if lower > 0:
            x = x + noise(sigma, lower) * lower
    return x


def uni_pc(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """UniPC-3 with B(h) = h, "bh1", predicting x0 (Zhao et al. 2023, arXiv 2302.04867). The call at each sigma serves
    twice: it corrects the x that was predicted there, and predicts the next. Orders 1, 2 at the start and 2, 1 at the end.

    The paper's alpha = 1 / sqrt(1 + sigma^2) is common to every term of its update and cancels in our x = x_vp / alpha.
    """
    past: list[tuple[float, Tensor]] = []  # (sigma, x0), newest first
    start, used = x, past
    for i, (sigma, lower) in enumerate(pairwise(sigmas)):
        now = (float(sigma), denoise(x, float(sigma)))
        if used:
            x = _uni_step(start, used, float(sigma), now)
        past = [now, *past[:2]]
        used = past[: min(3, len(sigmas) - 1 - i)]
        start, x = x, _uni_step(x, used, float(lower))
    return x


def _uni_step(x: Tensor, past: list[tuple[float, Tensor]], target: float, end: tuple[float, Tensor] | None = None) -> Tensor:
    """From sigma = past[0][0] to target. With r = 0 at sigma and 1 at target, evenly in ln(sigma), and h = ln(sigma / target):
    x_target = target/sigma x + h * integral over r of exp(-h (1 - r)) x0(r). x0(r) - x0(0) is the polynomial through the other
    known x0; `end` is the one at target, known when correcting. The weights solve the paper's R rho = b / B."""
    sigma, x0 = past[0]
    others = past[1:] + ([end] if end else [])
    x_line = x0 + (x - x0) * (target / sigma)
    if not others:
        return x_line
    h = math.log(sigma / target)
    r = np.array([math.log(sigma / other) / h for other, _ in others])
    moments = [-math.expm1(-h) / h]  # of r^0, r^1, ... under exp(-h (1 - r)), by parts
    for k in range(1, len(r) + 1):
        moments.append((1 - k * moments[-1]) / h)
    # A single weight need only be right to first order, and the paper takes 1/2.
    rho = [0.5] if len(r) == 1 else np.linalg.solve(np.vander(r, increasing=True).T, moments[1:])
    return x_line + h * sum(float(w / at) * (other - x0) for w, at, (_, other) in zip(rho, r, others, strict=True))
