"""Noise levels: which sigmas a model knows, and which of them a run visits.

Sigma is the standard deviation of the noise in x = x0 + sigma * noise (Karras et al. 2022, arXiv 2206.00364). A spacing
says how one family of models counts sigmas and how its output becomes a prediction of x0; a schedule picks n of the
spacing's sigmas for a run of n steps and ends with 0, which is the picture.

All of it is float32 on the CPU, in the order of operations that reproduces ComfyUI 0.3.64 to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from errors import InputError, UnknownNameError
from pipelines.sampling import SAMPLERS

_TABLE_SIZE = 1000
_LAST_ALPHA = 4.8973451890853435e-08  # of a schedule whose signal ends at zero
_MAX_STEPS = 10_000
_MAX_SCHEDULE = 1_000_000  # a small denoise computes steps / denoise sigmas, of which only the last are used


def _float32(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32)


class _Spacing:
    """What both families share. `table`: [1000] float32, ascending."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.sigma_min = float(table[0])
        self.sigma_max = float(table[-1])

    def scale_input(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """What the network sees: x brought to unit variance."""
        return x / (_float32(sigma) ** 2 + 1).sqrt()

    def noise_latent(self, noise: Tensor, latent: Tensor, sigma0: float | Tensor) -> Tensor:
        """The x that a run starts from. At the top of the spacing nothing of the latent should be left to see, so there
        the noise is scaled as if the latent were data of unit variance; further down it is added as it is."""
        sigma0 = _float32(sigma0)
        at_top = sigma0 > self.sigma_max or math.isclose(sigma0, self.sigma_max, rel_tol=1e-5)
        return noise * ((sigma0**2 + 1).sqrt() if at_top else sigma0) + latent


class DiscreteSigmas(_Spacing):
    """Stable Diffusion: `steps` betas, evenly spaced in their square roots ("scaled linear", Rombach et al. 2022).
    A timestep is an index into the table. With `zero_terminal_snr` the table ends, all but for rounding, in pure noise."""

    def __init__(
        self,
        prediction_type: str = "epsilon",
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        steps: int = _TABLE_SIZE,
        zero_terminal_snr: bool = False,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise UnknownNameError("prediction type", prediction_type, ("epsilon", "v_prediction"))
        self.prediction_type = prediction_type
        if steps < 2 or not 0 < beta_start < beta_end < 1:
            raise InputError(f"A noise schedule of {steps} steps from {beta_start} to {beta_end} is none.", "Use 1000, 0.00085 and 0.012.")
        betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
        alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt()
        if zero_terminal_snr:
            sigmas = _zero_terminal_snr(sigmas)
        super().__init__(sigmas.float())
        self._log_table = sigmas.log().float()

    def timestep(self, sigma: float | Tensor) -> Tensor:
        """The index of the nearest sigma, by ratio: a whole number, float32."""
        distance = _float32(sigma).log()[..., None] - self._log_table
        return distance.abs().argmin(dim=-1).float()

    def sigma(self, timestep: float | Tensor) -> Tensor:
        """Between two indices the logarithm is interpolated."""
        timestep = _float32(timestep).clamp(0, len(self.table) - 1)
        low, high, fraction = timestep.floor().long(), timestep.ceil().long(), timestep.frac()
        return ((1 - fraction) * self._log_table[low] + fraction * self._log_table[high]).exp()

    def denoised(self, x: Tensor, model_output: Tensor, sigma: float | Tensor) -> Tensor:
        """The prediction of x0 from predicted noise, or from v (Salimans and Ho 2022)."""
        if self.prediction_type == "v_prediction":
            return _denoised_from_v(x, model_output, sigma)
        return x - model_output * _float32(sigma)


def _zero_terminal_snr(sigmas: Tensor) -> Tensor:
    """The square roots of the cumulated alphas, moved and stretched so that the last is 0 and the first stays (Lin et al. 2023,
    arXiv 2305.08891, algorithm 1). ComfyUI then gives the last a value just above 0, for sigma to be a number: 4,518.76."""
    root = (1 / (sigmas**2 + 1)).sqrt()
    alphas_cumprod = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    alphas_cumprod[-1] = _LAST_ALPHA
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


class ContinuousSigmas(_Spacing):
    """Stable Video Diffusion: any sigma is allowed, the network is told ln(sigma) / 4 and predicts v
    (Blattmann et al. 2023). The table, for schedules that index one, is evenly spaced in ln(sigma)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 700.0) -> None:
        super().__init__(torch.linspace(math.log(sigma_min), math.log(sigma_max), _TABLE_SIZE).exp())

    def timestep(self, sigma: float | Tensor) -> Tensor:
        return 0.25 * _float32(sigma).log()

    def sigma(self, timestep: float | Tensor) -> Tensor:
        return (_float32(timestep) / 0.25).exp()

    def denoised(self, x: Tensor, model_output: Tensor, sigma: float | Tensor) -> Tensor:
        """The prediction of x0 from predicted v."""
        return _denoised_from_v(x, model_output, sigma)


def _denoised_from_v(x: Tensor, v: Tensor, sigma: float | Tensor) -> Tensor:
    sigma = _float32(sigma)
    return x / (sigma**2 + 1) - v * sigma / (sigma**2 + 1).sqrt()


# Each takes a spacing and n, and gives about n sigmas, falling, without the final 0.


def _normal(spacing: _Spacing, n: int) -> Tensor:
    """Evenly spaced timesteps, both ends included."""
    top, bottom = spacing.timestep(spacing.sigma_max), spacing.timestep(spacing.sigma_min)
    return spacing.sigma(torch.linspace(float(top), float(bottom), n))


def _sgm_uniform(spacing: _Spacing, n: int) -> Tensor:
    """Evenly spaced timesteps without the lowest, as in Stability's generative-models."""
    return _normal(spacing, n + 1)[:-1]


def _karras(spacing: _Spacing, n: int) -> Tensor:
    """Evenly spaced in sigma^(1/7) (Karras et al. 2022, equation 5)."""
    top, bottom = spacing.sigma_max ** (1 / 7), spacing.sigma_min ** (1 / 7)
    return (top + torch.linspace(0, 1, n) * (bottom - top)) ** 7


def _exponential(spacing: _Spacing, n: int) -> Tensor:
    """Evenly spaced in ln(sigma)."""
    return torch.linspace(math.log(spacing.sigma_max), math.log(spacing.sigma_min), n).exp()


def _simple(spacing: _Spacing, n: int) -> Tensor:
    """Entries of the table from the top down, at a fractional stride that is rounded down."""
    stride = len(spacing.table) / n
    return spacing.table[[-1 - int(i * stride) for i in range(n)]]


def _ddim_uniform(spacing: _Spacing, n: int) -> Tensor:
    """Entries 1, 1 + stride, ... of the table (Song et al. 2021). The whole-numbered stride often gives more sigmas than
    asked for, and leaves out the top."""
    stride = max(len(spacing.table) // n, 1)
    return spacing.table[1::stride].flip(0)


def _beta(spacing: _Spacing, n: int) -> Tensor:
    """Quantiles of Beta(0.6, 0.6), dense at both ends (Lee et al. 2024, arXiv 2407.12173)."""
    import numpy as np
    from scipy.special import betaincinv

    quantiles = betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, n, endpoint=False))
    return spacing.table[np.rint(quantiles * (len(spacing.table) - 1)).astype(int)]


def _linear_quadratic(spacing: _Spacing, n: int) -> Tensor:
    """Half of the steps spend 2.5 % of sigma_max in a line; the rest leave it with the same slope and reach 0 in a
    parabola (the schedule of Genmo's Mochi)."""
    if n == 1:
        return _float32([spacing.sigma_max])
    linear = n // 2
    curved = n - linear
    slope = 0.025 / linear
    bend = (1 - 0.025 - slope * curved) / curved**2
    spent = [slope * i + bend * max(i - linear, 0) ** 2 for i in range(n)]
    return _float32([1 - part for part in spent]) * spacing.sigma_max


def _kl_optimal(spacing: _Spacing, n: int) -> Tensor:
    """Evenly spaced in atan(sigma) (Sabour et al. 2024, "Align Your Steps", arXiv 2404.14507)."""
    fraction = torch.arange(n, dtype=torch.float32) / max(n - 1, 1)
    return (fraction * math.atan(spacing.sigma_min) + (1 - fraction) * math.atan(spacing.sigma_max)).tan()


_SCHEDULES: dict[str, Callable[[_Spacing, int], Tensor]] = {
    "normal": _normal,
    "karras": _karras,
    "exponential": _exponential,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
    "linear_quadratic": _linear_quadratic,
    "kl_optimal": _kl_optimal,
}
SCHEDULES = tuple(_SCHEDULES)

# These use two sigmas at a time, for which the last stretch before 0 is too long: they jump to 0 from the sigma above.
_SKIPS_PENULTIMATE = ("dpm_2", "dpm_2_ancestral", "uni_pc")


def make_sigmas(
    schedule: str,
    steps: int,
    spacing: DiscreteSigmas | ContinuousSigmas,
    *,
    sampler: str = "euler",
    denoise: float = 1.0,
) -> Tensor:
    """The falling sigmas of a run, [steps + 1] float32 on the CPU, the last one 0.

    A denoise below 1 runs only the end of a proportionally longer schedule; 0 gives no sigmas, so nothing is changed.
    "ddim_uniform" and "beta" may give more or fewer than asked for.
    """
    if schedule not in _SCHEDULES:
        raise UnknownNameError("schedule", schedule, SCHEDULES)
    if sampler not in SAMPLERS:
        raise UnknownNameError("sampler", sampler, SAMPLERS)
    _check(steps, denoise)
    if denoise == 0:
        return torch.zeros(0)
    whole = denoise > 0.9999
    total = steps if whole else int(steps / denoise)
    skip = sampler in _SKIPS_PENULTIMATE
    # A sigma that is met twice would be a step of no length, by which a multistep sampler divides.
    sigmas = torch.unique_consecutive(_SCHEDULES[schedule](spacing, total + skip))
    if skip:
        sigmas = sigmas[:-1]
    sigmas = torch.cat([sigmas, torch.zeros(1)])
    return sigmas if whole else sigmas[-(steps + 1) :]


def _check(steps: int, denoise: float) -> None:
    if not 1 <= steps <= _MAX_STEPS:
        nearest = min(max(steps, 1), _MAX_STEPS)
        raise InputError(f"steps is {steps}, outside 1 to {_MAX_STEPS}.", f"The nearest that works is {nearest}.")
    if not 0 <= denoise <= 1:
        raise InputError(f"denoise is {denoise}, outside 0 to 1.", "1 starts from pure noise, 0 changes nothing.")
    least = steps / _MAX_SCHEDULE
    if 0 < denoise < least:
        raise InputError(f"denoise {denoise} is too small for {steps} steps.", f"Use 0, or at least {least:g}.")
