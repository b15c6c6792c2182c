"""Sampling: a sampler's name, a model and a seed become a picture.

A sampler is a solver (pipelines/solvers.py) and the kind of noise it is fed. Its sigmas come from pipelines/schedules.py.
Progress, previews and cancelling are the business of the caller's denoise function, which may raise.

Noise comes from the seed alone, never from torch's global generator, and except for the "_gpu" names it is drawn on the
CPU: the same seed gives the same picture on every machine, up to the rounding of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from errors import InputError, UnknownNameError
from pipelines import solvers
from pipelines.solvers import Denoise, Noise

_LARGEST_SEED = 2**64 - 1


def no_noise(x: Tensor, sigmas: Tensor, seed: int) -> Noise:
    return lambda sigma, lower: torch.zeros_like(x)


def independent_noise(x: Tensor, sigmas: Tensor, seed: int) -> Noise:
    """A fresh draw a step. Its generator starts at the seed, as ComfyUI 0.3.64 does, so that the first draw is the initial
    noise over again."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return lambda sigma, lower: torch.randn(x.shape, generator=generator, dtype=torch.float32, device="cpu").to(x)


def brownian_noise(x: Tensor, sigmas: Tensor, seed: int, device: torch.device | str = "cpu") -> Noise:
    """Increments of one Brownian path that runs in sigma, scaled to unit variance: more steps refine the same path, so
    they converge to the same picture (torchsde.BrownianTree, Li et al. 2020, arXiv 2001.01328)."""
    import torchsde

    bottom, top = sigmas[sigmas > 0].min(), sigmas.max()
    w0 = torch.zeros(x.shape, dtype=torch.float32, device=device)
    tree = torchsde.BrownianTree(t0=float(bottom), w0=w0, t1=float(top), entropy=seed)
    # The tree rounds its ends to 6 decimals, and clamps and warns when asked beyond them: clamped here, it has no cause to.
    first, last = round(float(bottom), 6), round(float(top), 6)

    def draw(sigma: Tensor, lower: Tensor) -> Tensor:
        start, end = (min(max(float(time), first), last) for time in (lower, sigma))
        return (-tree(start, end) / (sigma - lower).sqrt()).to(x)

    return draw


def brownian_noise_on_device(x: Tensor, sigmas: Tensor, seed: int) -> Noise:
    """Drawn where x is: faster on a GPU, and another picture than the CPU's."""
    return brownian_noise(x, sigmas, seed, x.device)


_Solver = Callable[[Denoise, Tensor, Tensor, Noise], Tensor]
_NoiseSource = Callable[[Tensor, Tensor, int], Noise]
_SAMPLERS: dict[str, tuple[_Solver, _NoiseSource]] = {
    "euler": (solvers.euler, no_noise),
    "euler_ancestral": (solvers.euler_ancestral, independent_noise),
    "heun": (solvers.heun, no_noise),
    "dpm_2": (solvers.dpm_2, no_noise),
    "dpm_2_ancestral": (solvers.dpm_2_ancestral, independent_noise),
    "lms": (solvers.lms, no_noise),
    "dpmpp_2s_ancestral": (solvers.dpmpp_2s_ancestral, independent_noise),
    "dpmpp_sde": (solvers.dpmpp_sde, brownian_noise),
    "dpmpp_sde_gpu": (solvers.dpmpp_sde, brownian_noise_on_device),
    "dpmpp_2m": (solvers.dpmpp_2m, no_noise),
    "dpmpp_2m_sde": (solvers.dpmpp_2m_sde, brownian_noise),
    "dpmpp_2m_sde_gpu": (solvers.dpmpp_2m_sde, brownian_noise_on_device),
    "dpmpp_3m_sde": (solvers.dpmpp_3m_sde, brownian_noise),
    "dpmpp_3m_sde_gpu": (solvers.dpmpp_3m_sde, brownian_noise_on_device),
    "ddim": (solvers.euler, no_noise),  # deterministic DDIM is Euler's method in sigma
    "uni_pc": (solvers.uni_pc, no_noise),
    "lcm": (solvers.lcm, independent_noise),
}
SAMPLERS = tuple(_SAMPLERS)


def _sampler(name: str) -> tuple[_Solver, _NoiseSource]:
    if name not in _SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    return _SAMPLERS[name]


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= _LARGEST_SEED:
        nearest = min(max(seed, 0), _LARGEST_SEED)
        raise InputError(f"seed is {seed}, outside 0 to {_LARGEST_SEED}.", f"The nearest that works is {nearest}.")


def initial_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Unit normal noise of `shape`, float32 on the CPU. A batch is one draw, so that a frame's noise depends on the frames
    before it."""
    _check_seed(seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def sample(sampler: str, denoise: Denoise, x: Tensor, sigmas: Tensor, seed: int) -> Tensor:
    """x at sigmas[0] -> x at sigmas[-1]; of the shape, dtype and device of x, which is left as it is. With fewer than two
    sigmas there is nothing to do. `seed` matters to samplers that add noise."""
    solver, noise_source = _sampler(sampler)
    _check_seed(seed)
    if len(sigmas) < 2:
        return x
    sigmas = sigmas.cpu()
    return solver(denoise, x, sigmas, noise_source(x, sigmas, seed))


def count_model_calls(sampler: str, sigmas: Tensor) -> int:
    """How often `sample` will call denoise: found by a run over a single number with a model that only counts."""
    solver, _ = _sampler(sampler)
    calls = 0

    def count(x: Tensor, sigma: float) -> Tensor:
        nonlocal calls
        calls += 1
        return x

    one_number = torch.zeros(1)
    if len(sigmas) > 1:
        solver(count, one_number, sigmas.cpu(), no_noise(one_number, sigmas, 0))
    return calls
