"""Solvers against problems whose answers are known.

The data are either one Gaussian, whose best denoiser and whose ODE solution have closed forms, or an equal mixture of two,
whose best denoiser is not linear and whose solution is integrated to 1e-12. Orders are measured in float64.
"""

import itertools
import math

import pytest
import torch
from scipy.integrate import solve_ivp

from pipelines.sampling import initial_noise, sample

MEAN, SPREAD = 0.3, 0.7
TOP, BOTTOM = 10.0, 0.1


def gaussian(x, sigma):
    """E[x0 | x] for x0 ~ N(MEAN, SPREAD^2)."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def mixture(x, sigma):
    """E[x0 | x] for x0 ~ N(-1, 0.16) or N(1, 0.16)."""
    variance = 0.16 + sigma**2
    return (0.16 * x + sigma**2 * torch.tanh(x / variance)) / variance


def solution(denoise, x, sigma, target):
    """x at target, on the ODE through x at sigma."""
    if denoise is gaussian:
        return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + target**2) / (SPREAD**2 + sigma**2))

    def slope(s, y):
        return (y - denoise(torch.from_numpy(y), s).numpy()) / s

    found = solve_ivp(slope, (sigma, target), x.numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
    return torch.from_numpy(found.y[:, -1])


def falling(steps, *, end=()):
    """`steps` steps from TOP to BOTTOM, even in ln(sigma), float64, and perhaps one more to 0."""
    levels = torch.logspace(math.log10(TOP), math.log10(BOTTOM), steps + 1, dtype=torch.float64)
    return torch.cat([levels, torch.tensor(end, dtype=torch.float64)])


def recorded(denoise, calls):
    def remember(x, sigma):
        calls.append((x, sigma))
        return denoise(x, sigma)

    return remember


def error_at_bottom(sampler, denoise, steps):
    """The error of the x that is handed to the last call, at BOTTOM, in a run that goes on to 0 as real runs do."""
    start = TOP * torch.tensor([-2.0, -0.5, 0.2, 1.3], dtype=torch.float64)
    calls = []
    sample(sampler, recorded(denoise, calls), start, falling(steps, end=[0.0]), 0)
    x, sigma = calls[-1]
    assert sigma == pytest.approx(BOTTOM)
    return float((x - solution(denoise, start, TOP, BOTTOM)).abs().max())


@pytest.mark.parametrize("denoise", [gaussian, mixture], ids=["gaussian", "mixture"])
@pytest.mark.parametrize(
    ("sampler", "order"),
    [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm_2", 2), ("dpmpp_2m", 2), ("lms", 2), ("uni_pc", 3)],
)
def test_order_of_convergence(sampler, denoise, order):
    """Twice the steps, 2^order times less error. lms is of order 4, but its first step is Euler's, whose error in the end
    prevails; uni_pc begins likewise, and its corrector makes up for it."""
    coarse, fine = (error_at_bottom(sampler, denoise, steps) for steps in (80, 160))
    measured = math.log2(coarse / fine)
    assert measured > order - 0.1
    if sampler != "lms":
        assert measured < order + 0.2


@pytest.mark.parametrize("denoise", [gaussian, mixture], ids=["gaussian", "mixture"])
def test_twenty_steps_of_a_higher_order_are_worth_more(denoise):
    error = {name: error_at_bottom(name, denoise, 20) for name in ("euler", "heun", "dpm_2", "dpmpp_2m", "lms", "uni_pc")}
    assert error["euler"] > 0.05 > error["heun"] > error["dpm_2"] > error["dpmpp_2m"] > error["uni_pc"]
    assert error["uni_pc"] < 1e-3


def test_lms_is_exact_for_a_slope_that_is_cubic_in_sigma():
    def slope(s):
        return 1 - 2 * s + s**2 / 3 - s**3 / 10

    def integral(s):
        return s - s**2 + s**3 / 9 - s**4 / 40

    calls = []
    denoise = recorded(lambda x, sigma: x - sigma * slope(sigma), calls)
    sample("lms", denoise, torch.zeros(1, dtype=torch.float64), falling(12, end=[0.0]), 0)
    started, last = calls[3], calls[-1]  # three steps lead up to order 4
    assert float(last[0] - started[0]) == pytest.approx(integral(last[1]) - integral(started[1]), abs=1e-12)
    assert float(started[0] - calls[0][0]) != pytest.approx(integral(started[1]) - integral(TOP), abs=1e-3)


def test_uni_pc_is_exact_for_an_x0_that_is_quadratic_in_log_sigma():
    """x / sigma grows by the integral of exp(l) x0(l) over l = -ln(sigma); here x0 = l^2 - 3. What order 3 adds to x / sigma
    is exact, predicted or corrected, so the error of the first two steps stays as it is until the last ones."""
    calls = []
    denoise = recorded(lambda x, sigma: torch.full_like(x, math.log(sigma) ** 2 - 3), calls)
    sample("uni_pc", denoise, torch.zeros(1, dtype=torch.float64), falling(12, end=[0.0]), 0)

    def integral(sigma):
        log = -math.log(sigma)
        return (log**2 - 2 * log - 1) / sigma

    errors = [float(x) / sigma - (integral(sigma) - integral(TOP)) for x, sigma in calls]
    assert errors[3:12] == pytest.approx([errors[3]] * 9, abs=1e-12)
    assert abs(errors[12] - errors[3]) > 1e-6
    assert abs(errors[2] - errors[3]) > 1e-6


def without_noise(sampler, x0, sigmas):
    """(sigma, x) at every call in a run from x = 0 where the prediction depends on sigma alone. x is then linear in it, and
    the noise cancels against a run that predicts 0."""
    found = []
    for weight in (0, 1):
        calls = []
        denoise = recorded(lambda x, sigma, weight=weight: torch.full_like(x, weight * x0(sigma)), calls)
        sample(sampler, denoise, torch.zeros(1, dtype=torch.float64), sigmas, 0)
        found.append(calls)
    return [(sigma, float(x - noise)) for (noise, _), (x, sigma) in zip(*found, strict=True)]


def test_the_ancestral_two_call_samplers_take_their_steps():
    """By hand, where x0 = sigma, from 4 to 2, which is 1 and noise: the middle of 4 and 1 is 2."""
    sigmas = torch.tensor([4.0, 2.0, 0.0], dtype=torch.float64)
    _, (middle, x_middle), (end, x_end) = without_noise("dpm_2_ancestral", lambda sigma: sigma, sigmas)
    assert [middle, x_middle, end] == pytest.approx([2, 4 - 2, 2])
    assert x_end == pytest.approx((x_middle - 2) / 2 * (1 - 4), abs=1e-12)
    _, (middle, x_middle), (end, x_end) = without_noise("dpmpp_2s_ancestral", lambda sigma: sigma, sigmas)
    assert [middle, x_middle, end] == pytest.approx([2, 4 - 2, 2])
    assert x_end == pytest.approx(2 + (0 - 2) * (1 / 4))


@pytest.mark.parametrize("sampler", ["dpmpp_2m_sde", "dpmpp_2m_sde_gpu"])
def test_dpmpp_2m_sde_looks_half_a_step_ahead(sampler):
    """Where x0 = l in l = -ln(sigma), the next x has the share that is new of l half a step on."""
    h = math.log(TOP / BOTTOM) / 8
    share = math.exp(-2 * h)
    found = without_noise(sampler, lambda sigma: -math.log(sigma), falling(8))
    for (sigma, x), (_, after) in itertools.pairwise(found[1:]):
        assert after == pytest.approx(share * x + (1 - share) * (-math.log(sigma) + h / 2), abs=1e-12)


def test_dpmpp_3m_sde_follows_a_parabola_with_half_of_its_curvature():
    """Where x0 = l^2 in l = -ln(sigma), a step h later x should be (sigma'/sigma)^2 x plus the integral of
    2 exp(-2 (h - t)) (l + t)^2 over t from 0 to h. The formula in use weighs the t^2 in it by a half."""
    h = math.log(TOP / BOTTOM) / 8
    share = math.exp(-2 * h)
    integral_of_t = h - (1 - share) / 2
    integral_of_t2 = h**2 - integral_of_t
    found = without_noise("dpmpp_3m_sde", lambda sigma: math.log(sigma) ** 2, falling(8))
    for (sigma, x), (_, after) in itertools.pairwise(found[2:]):
        l = -math.log(sigma)
        expected = share * x + (1 - share) * l**2 + 2 * l * integral_of_t + integral_of_t2 / 2
        assert after == pytest.approx(expected, abs=1e-12)


def normal_start(count):
    """`count` samples of the noisy data at TOP with exactly its mean and variance, so that only the run adds chance."""
    x = initial_noise((count,), 99).double()
    return MEAN + (x - x.mean()) / x.std() * math.sqrt(SPREAD**2 + TOP**2)


def excess_variance(x):
    return float(x.var()) / (SPREAD**2 + BOTTOM**2) - 1


@pytest.mark.parametrize(("sampler", "order"), [("euler_ancestral", 1), ("dpm_2_ancestral", 2), ("dpmpp_2s_ancestral", 2)])
def test_ancestral_samplers_reach_the_distribution_of_the_data(sampler, order):
    start = normal_start(100_000)
    ends = {steps: sample(sampler, gaussian, start, falling(steps), 3) for steps in (5, 20, 80)}
    for x in ends.values():
        assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    coarse, middle, fine = (abs(excess_variance(x)) for x in ends.values())
    assert coarse / middle > 0.55 * 4**order
    assert fine < (0.08, 0.01)[order - 1]


def test_euler_ancestral_has_the_variance_that_its_steps_foretell():
    """With a linear denoiser every step is linear, and the variance at the end can be summed up by hand."""
    sigmas = falling(6)
    variance = SPREAD**2 + TOP**2
    for sigma, lower in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
        down = lower**2 / sigma
        up = lower * math.sqrt(1 - (lower / sigma) ** 2)
        share = SPREAD**2 / (SPREAD**2 + sigma**2)
        variance = (share + (1 - share) * down / sigma) ** 2 * variance + up**2
    x = sample("euler_ancestral", gaussian, normal_start(100_000), sigmas, 3)
    assert float(x.var()) == pytest.approx(variance, rel=0.01)


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_is_exact_for_a_consistency_model(steps):
    """Such a model gives the end of the ODE, not the mean of x0; then each step has the right distribution."""

    def consistent(x, sigma):
        return solution(gaussian, x, sigma, 0.0)

    x = sample("lcm", consistent, normal_start(100_000), falling(steps), 3)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    assert excess_variance(x) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_brownian_samplers_reach_the_distribution_of_the_data(sampler):
    x = sample(sampler, gaussian, normal_start(20_000), falling(40), 3)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.02)
    assert excess_variance(x) == pytest.approx(0, abs=0.03)


def test_brownian_samplers_converge_to_one_picture_per_seed():
    """The noise is one path however finely it is walked, so more steps approach the same x, at order 1, and all three
    samplers approach the same one."""
    start = TOP * initial_noise((500,), 99).double()
    limit = sample("dpmpp_2m_sde", mixture, start, falling(320), 3)
    for sampler in ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"):
        ends = (sample(sampler, mixture, start, falling(steps), 3) for steps in (20, 80))
        far, near = (float((x - limit).square().mean().sqrt()) for x in ends)
        assert far / near > 3
        assert near < 0.08
