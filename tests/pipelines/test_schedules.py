"""Sigmas against those that ComfyUI 0.3.64 handed to its samplers (tests/data/comfyui_sigmas.json).

On the machine of the recording all 7 000 numbers agree to the last bit; elsewhere another exp or pow may round differently.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from errors import InputError, UnknownNameError
from pipelines.sampling import SAMPLERS
from pipelines.schedules import SCHEDULES, ContinuousSigmas, DiscreteSigmas, make_sigmas

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "comfyui_sigmas.json").read_text())
SPACINGS = {"sd15": DiscreteSigmas(), "svd": ContinuousSigmas()}
ROUNDING = {"rtol": 1e-6, "atol": 0.0}
both_models = pytest.mark.parametrize("spacing", SPACINGS.values(), ids=SPACINGS)


def test_every_schedule_was_recorded_for_both_models():
    cases = {tuple(key.split("/")[:2]) for key in RECORDED["tables"]}
    assert cases == {(model, schedule) for model in SPACINGS for schedule in SCHEDULES}
    assert len(RECORDED["tables"]) == 432


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("model", SPACINGS)
def test_sigmas_are_the_recorded_ones(model, schedule):
    for key, table in RECORDED["tables"].items():
        recorded_model, recorded_schedule, sampler, steps, denoise = key.split("/")
        if (recorded_model, recorded_schedule) != (model, schedule) or None in table:
            continue
        sigmas = make_sigmas(schedule, int(steps), SPACINGS[model], sampler=sampler, denoise=float(denoise))
        assert sigmas.dtype == torch.float32
        torch.testing.assert_close(sigmas, torch.tensor(table), **ROUNDING, msg=lambda text, key=key: f"{key}: {text}")


@both_models
def test_one_kl_optimal_step_starts_at_the_top_where_comfyui_has_nan(spacing):
    nan = [key for key, table in RECORDED["tables"].items() if None in table]
    assert nan == ["sd15/kl_optimal/euler/1/1.0", "svd/kl_optimal/euler/1/1.0"]
    top, end = make_sigmas("kl_optimal", 1, spacing)
    assert top == pytest.approx(spacing.sigma_max, rel=1e-5)
    assert end == 0


@pytest.mark.parametrize("model", SPACINGS)
def test_timesteps_and_ends_are_the_recorded_ones(model):
    spacing = SPACINGS[model]
    assert [spacing.sigma_min, spacing.sigma_max] == pytest.approx(RECORDED["sigma_min_max"][model], rel=1e-7)
    for sigma, timestep in RECORDED["timesteps"][model].items():
        got = spacing.timestep(float(sigma))
        assert got.dtype == torch.float32
        assert float(got) == pytest.approx(timestep, rel=1e-6)


@both_models
def test_tables_ascend_and_timesteps_lead_back_to_them(spacing):
    assert spacing.table.shape == (1000,)
    assert (spacing.table.diff() > 0).all()
    torch.testing.assert_close(spacing.sigma(spacing.timestep(spacing.table)), spacing.table, rtol=3e-6, atol=0)


def test_fractional_timesteps_interpolate_the_logarithm():
    spacing = SPACINGS["sd15"]
    between = float(spacing.sigma(500.5))
    assert between == pytest.approx(math.sqrt(spacing.table[500] * spacing.table[501]), rel=1e-6)


@both_models
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 1001, 2500])
def test_any_number_of_steps_falls_to_zero_without_standing_still(spacing, schedule, steps):
    for sampler in ("euler", "uni_pc"):
        sigmas = make_sigmas(schedule, steps, spacing, sampler=sampler)
        assert sigmas.isfinite().all()
        assert (sigmas.diff() < 0).all()
        assert sigmas[-1] == 0
        assert len(sigmas) >= 2


def test_denoise_runs_the_end_of_a_longer_schedule():
    spacing = SPACINGS["sd15"]
    assert torch.equal(make_sigmas("karras", 6, spacing, denoise=0.3), make_sigmas("karras", 20, spacing)[-7:])
    assert torch.equal(make_sigmas("karras", 7, spacing, denoise=0.6), make_sigmas("karras", 11, spacing)[-8:])
    assert len(make_sigmas("karras", 6, spacing, denoise=0)) == 0


def test_a_denoise_of_nearly_one_keeps_what_a_schedule_gives_beyond_the_steps():
    whole = make_sigmas("ddim_uniform", 7, SPACINGS["sd15"])
    assert len(whole) == 9
    assert torch.equal(make_sigmas("ddim_uniform", 7, SPACINGS["sd15"], denoise=0.99995), whole)
    assert torch.equal(make_sigmas("ddim_uniform", 7, SPACINGS["sd15"], denoise=0.9998), whole[-8:])


def test_three_samplers_skip_the_penultimate_sigma():
    longer = make_sigmas("karras", 6, SPACINGS["sd15"])
    skipped = torch.cat([longer[:-2], longer[-1:]])
    five = {name: make_sigmas("karras", 5, SPACINGS["sd15"], sampler=name) for name in SAMPLERS}
    assert {name for name in SAMPLERS if torch.equal(five[name], skipped)} == {"dpm_2", "dpm_2_ancestral", "uni_pc"}
    assert sum(torch.equal(sigmas, five["euler"]) for sigmas in five.values()) == len(SAMPLERS) - 3


@pytest.mark.parametrize(
    ("steps", "denoise", "message"),
    [
        (0, 1.0, "steps is 0, outside 1 to 10000. The nearest that works is 1."),
        (10_001, 1.0, "steps is 10001, outside 1 to 10000. The nearest that works is 10000."),
        (0, 0.0, "steps is 0"),
        (20, -0.1, "denoise is -0.1, outside 0 to 1."),
        (20, 1.1, "denoise is 1.1, outside 0 to 1."),
        (20, math.nan, "denoise is nan, outside 0 to 1."),
        (20, 1e-9, "denoise 1e-09 is too small for 20 steps. Use 0, or at least 2e-05."),
    ],
)
def test_numbers_outside_their_bounds_are_refused(steps, denoise, message):
    with pytest.raises(InputError) as refusal:
        make_sigmas("normal", steps, SPACINGS["sd15"], denoise=denoise)
    assert message in str(refusal.value)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"Unknown schedule 'karas'. Did you mean 'karras'\?") as refusal:
        make_sigmas("karas", 4, SPACINGS["sd15"])
    assert refusal.value.known == list(SCHEDULES)
    with pytest.raises(UnknownNameError, match="Unknown sampler 'uni_pcc'"):
        make_sigmas("karras", 4, SPACINGS["sd15"], sampler="uni_pcc")
    with pytest.raises(UnknownNameError, match="Unknown prediction type 'v'"):
        DiscreteSigmas("v")


@pytest.mark.parametrize("sigma", [0.05, 1.0, 14.0])
def test_a_perfect_network_predicts_x0(sigma):
    """eps is the noise; v = alpha noise - sigma_vp x0 in the variance-preserving variables (Salimans and Ho 2022)."""
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    x = x0 + sigma * noise
    v = (noise - sigma * x0) / math.sqrt(1 + sigma**2)
    close = {"rtol": 0, "atol": 1e-5 * (1 + sigma)}
    torch.testing.assert_close(DiscreteSigmas().denoised(x, noise, sigma), x0, **close)
    torch.testing.assert_close(DiscreteSigmas("v_prediction").denoised(x, v, sigma), x0, **close)
    torch.testing.assert_close(ContinuousSigmas().denoised(x, v, sigma), x0, **close)
    assert float(ContinuousSigmas().scale_input(x, sigma).std()) == pytest.approx(1, abs=0.1)


@both_models
def test_a_run_from_the_top_scales_its_noise_by_more_than_sigma(spacing):
    noise, latent = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    top = spacing.sigma_max
    for sigma in (top, top * (1 + 1e-3), top * (1 - 5e-6)):
        scale = math.sqrt(sigma**2 + 1)
        torch.testing.assert_close(spacing.noise_latent(noise, latent, sigma), scale * noise + latent)
    for sigma in (top * (1 - 1e-4), 1.0):
        torch.testing.assert_close(spacing.noise_latent(noise, latent, sigma), sigma * noise + latent)


def test_which_schedules_start_from_the_top_on_stable_diffusion():
    spacing = SPACINGS["sd15"]
    one = torch.ones(1)
    scaled = {name: spacing.noise_latent(one, 0 * one, make_sigmas(name, 20, spacing)[0]) for name in SCHEDULES}
    low = {name for name, scale in scaled.items() if scale < math.sqrt(spacing.sigma_max**2 + 1) * (1 - 1e-5)}
    assert low == {"ddim_uniform"}


def test_a_schedule_that_ends_in_pure_noise_is_that_of_its_paper() -> None:
    """diffusers' reading of algorithm 1 of Lin et al. 2023, but for the last entry, which would be infinite."""
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    table = DiscreteSigmas("v_prediction", zero_terminal_snr=True).table
    torch.testing.assert_close(table[:-1], ((1 - alphas) / alphas).sqrt().float()[:-1])
    assert float(table[-1]) == pytest.approx(4518.7637, abs=1e-3)
    assert float(table[0]) == pytest.approx(float(DiscreteSigmas().table[0]))
