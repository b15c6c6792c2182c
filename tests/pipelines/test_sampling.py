"""Samplers by name: their noise, their promises, and two runs of ComfyUI 0.3.64 played back (tests/data/comfyui_*)."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from errors import InputError, UnknownNameError
from pipelines.sampling import SAMPLERS, brownian_noise, count_model_calls, independent_noise, initial_noise, sample
from pipelines.schedules import ContinuousSigmas, DiscreteSigmas, make_sigmas

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
NOISE = load_file(DATA / "comfyui_noise.safetensors")
RUNS = load_file(DATA / "comfyui_runs.safetensors")

STILL_SEED, FILM_SEED = 367490676387803, 510424455529432
SEEDS = {"img": STILL_SEED, "vid": FILM_SEED, "seed0": 0, "seedmax": 2**64 - 1}
DETERMINISTIC = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "ddim", "uni_pc")
STOCHASTIC = tuple(name for name in SAMPLERS if name not in DETERMINISTIC)

SD, SVD = DiscreteSigmas(), ContinuousSigmas()
SIGMAS = make_sigmas("karras", 6, SD)


def shrink(x, sigma):
    """A denoiser like any other: the best one for data of unit variance."""
    return x / (1 + sigma**2)


@pytest.mark.parametrize("name", SEEDS)
def test_noise_is_comfyuis_bit_for_bit(name):
    recorded = NOISE[f"initial.{name}"]
    assert torch.equal(initial_noise(recorded.shape, SEEDS[name]), recorded)
    draw = independent_noise(recorded, SIGMAS, SEEDS[name])
    for step in range(2):
        assert torch.equal(draw(SIGMAS[step], SIGMAS[step + 1]), NOISE[f"ancestral.{name}.{step}"])


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_sde_gpu"])
def test_brownian_noise_is_comfyuis_bit_for_bit(name):
    sigmas = make_sigmas("karras", 3, SD)
    x = NOISE["initial.img"]
    visited = []

    def visit(x, sigma):
        visited.append(torch.tensor(sigma))
        return x

    sample(name, visit, x, sigmas, STILL_SEED)
    draw = brownian_noise(x, sigmas, STILL_SEED)
    for step, middle in enumerate(visited[1:4:2]):
        for part, lower in (("mid", middle), ("full", sigmas[step + 1])):
            expected = NOISE[f"brownian.cpu_{name == 'dpmpp_sde'}.{step}.{part}"]
            assert torch.equal(draw(sigmas[step], lower), expected), (step, part)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_noise_is_of_the_samplers_kind(sampler):
    """Where both x and x0 are 0, what the second step finds is the first step's noise and nothing else."""
    x, sigmas, found = torch.zeros(1, 4, 8, 8), make_sigmas("karras", 2, SD), {}

    def denoise(x, sigma):
        found[sigma] = x
        return torch.zeros_like(x)

    sample(sampler, denoise, x, sigmas, 3)
    source = brownian_noise if "sde" in sampler else independent_noise
    noise = source(x, sigmas, 3)(sigmas[0], sigmas[1])
    scale = found[float(sigmas[1])] / noise
    torch.testing.assert_close(scale, scale.mean().expand_as(scale), rtol=1e-4, atol=0)
    assert scale.mean() == pytest.approx(float(sigmas[1]), rel=1e-4)


def test_dpmpp_sde_plays_comfyuis_still_back():
    """Three UNet outputs of a recorded run (karras, 2 steps, guidance 7) make its inputs and its latent again."""
    sigmas = make_sigmas("karras", 2, SD, sampler="dpmpp_sde_gpu")
    call = iter(range(3))

    def denoise(x, sigma):
        k = next(call)
        seen = RUNS[f"dpmpp_sde.network_input.{k}"]
        torch.testing.assert_close(SD.scale_input(x, sigma), seen, rtol=1e-5, atol=1e-4)
        without, with_prompt = (SD.denoised(x, out, sigma) for out in RUNS[f"dpmpp_sde.network_output.{k}"].split(1))
        return without + 7 * (with_prompt - without)

    x = initial_noise((1, 4, 8, 8), STILL_SEED)
    x = sample("dpmpp_sde_gpu", denoise, SD.noise_latent(x, torch.zeros_like(x), sigmas[0]), sigmas, STILL_SEED)
    torch.testing.assert_close(x / 0.18215, RUNS["dpmpp_sde.samples"], rtol=1e-6, atol=1e-3)


def test_euler_ancestral_plays_comfyuis_film_back():
    """The last of five frames of a recorded run (karras, 3 steps). From sigma 15.6 to 0.002 `down` rounds to 0 in float32:
    ComfyUI adds no noise in such a step, and neither do we. In the step before, it subtracts numbers of 2 000, whose float32
    spacing is 1e-4."""
    sigmas = make_sigmas("karras", 3, SVD, sampler="euler_ancestral")
    call = iter(range(3))

    def denoise(x, sigma):
        k = next(call)
        torch.testing.assert_close(x[-1], RUNS[f"euler_ancestral.x.{k}"], rtol=0, atol=(0, 4e-4, 0)[k])
        return RUNS[f"euler_ancestral.denoised.{k}"].expand_as(x)

    x = initial_noise((5, 4, 24, 16), FILM_SEED)
    x = sample("euler_ancestral", denoise, SVD.noise_latent(x, torch.zeros_like(x), sigmas[0]), sigmas, FILM_SEED)
    torch.testing.assert_close(x[-1] / 0.18215, RUNS["euler_ancestral.samples"], rtol=1e-6, atol=1e-6)


def test_the_samplers_are_the_promised_ones():
    assert sorted(SAMPLERS) == sorted(set(DETERMINISTIC + STOCHASTIC))
    assert len(SAMPLERS) == 17


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
@pytest.mark.parametrize("spacing", [SD, SVD], ids=["sd15", "svd"])
def test_a_model_that_knows_the_picture_gets_it(spacing, steps, sampler):
    picture = torch.linspace(-3, 3, 24).view(1, 4, 3, 2)
    sigmas = make_sigmas("karras", steps, spacing, sampler=sampler)
    calls = []

    def denoise(x, sigma):
        assert isinstance(sigma, float)
        calls.append(sigma)
        return picture

    start = sigmas[0] * initial_noise(picture.shape, 5)
    assert torch.equal(sample(sampler, denoise, start, sigmas, 5), picture)
    assert len(calls) == count_model_calls(sampler, sigmas)
    assert min(calls) > 0
    assert max(calls) == sigmas[0]


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [("euler", 6), ("dpmpp_2m", 6), ("uni_pc", 6), ("lcm", 6), ("heun", 11), ("dpm_2", 11), ("dpmpp_sde", 11)],
)
def test_six_steps_take_this_many_model_calls(sampler, calls):
    assert count_model_calls(sampler, make_sigmas("karras", 6, SD, sampler=sampler)) == calls


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_and_nothing_else(sampler):
    x = SIGMAS[0] * initial_noise((1, 4, 4, 4), 1)
    before = x.clone()
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (sample(sampler, shrink, x, SIGMAS, seed) for seed in (8, 8, 9))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (sampler in DETERMINISTIC)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_on_the_cpu_the_gpu_names_are_the_plain_ones(sampler):
    x = SIGMAS[0] * initial_noise((1, 4, 4, 4), 1)
    assert torch.equal(sample(sampler, shrink, x, SIGMAS, 8), sample(f"{sampler}_gpu", shrink, x, SIGMAS, 8))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_dtype_is_kept_and_agrees(sampler):
    x = SIGMAS[0] * initial_noise((1, 4, 4, 4), 1)
    exact = sample(sampler, shrink, x.double(), SIGMAS, 8)
    assert exact.dtype == torch.float64
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 0.02), (torch.bfloat16, 0.2)):
        got = sample(sampler, shrink, x.to(dtype), SIGMAS, 8)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if not name.endswith("_gpu")])
def test_noise_from_the_cpu_follows_x_to_its_device(sampler):
    got = sample(sampler, shrink, torch.empty(1, 4, 4, 4, device="meta", dtype=torch.float16), SIGMAS, 8)
    assert got.device.type == "meta"
    assert got.dtype == torch.float16


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fewer_than_two_sigmas_change_nothing(sampler):
    x = torch.ones(1, 4, 2, 2)
    for sigmas in (torch.zeros(0), torch.ones(1)):
        assert torch.equal(sample(sampler, shrink, x, sigmas, 0), x)
        assert count_model_calls(sampler, sigmas) == 0


def test_what_denoise_raises_comes_through():
    def stop(x, sigma):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample("dpmpp_sde", stop, torch.ones(1, 4, 2, 2), SIGMAS, 0)


def test_unknown_samplers_are_answered_with_the_known_ones():
    for ask in (lambda: sample("eular", shrink, torch.ones(1), SIGMAS, 0), lambda: count_model_calls("eular", SIGMAS)):
        with pytest.raises(UnknownNameError, match=r"Unknown sampler 'eular'. Did you mean 'euler'\?") as refusal:
            ask()
        assert refusal.value.known == list(SAMPLERS)


@pytest.mark.parametrize(("seed", "nearest"), [(-1, 0), (2**64, 2**64 - 1)])
def test_seeds_outside_64_bits_are_refused(seed, nearest):
    for ask in (lambda: initial_noise((1, 4, 2, 2), seed), lambda: sample("euler", shrink, torch.ones(1), SIGMAS, seed)):
        with pytest.raises(InputError, match=f"seed is {seed}, outside 0 to .* The nearest that works is {nearest}."):
            ask()


@pytest.mark.parametrize("module", ["sampling", "schedules", "solvers"])
def test_scipy_and_torchsde_are_imported_only_where_they_are_used(module):
    top_level = ast.parse((ROOT / "pipelines" / f"{module}.py").read_text()).body
    names = {alias.name for node in top_level if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in top_level if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & {"scipy", "torchsde"}
