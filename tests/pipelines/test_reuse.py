from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from errors import Canceled
from pipelines.image_to_video import condition, guidance_scale, sample_motion
from pipelines.latents import empty
from pipelines.memory import choose_placement, stream
from pipelines.model_files import BUNDLED, DEMO_MOTION
from pipelines.models import MotionModels, load_motion, load_still
from pipelines.parameters import MotionSettings, Sampling
from pipelines.pieces import Plan, Relief
from pipelines.progress import never
from pipelines.reuse import BOTH, WITH, WITHOUT, Reuse, outermost
from pipelines.text_to_image import encode_prompt, sample_still
from pipelines.values import Latents, Pictures
from tests.conftest import MOTION_NAME, STILL_NAME

SETTINGS = MotionSettings(width=64, height=48, frames=3, steps=4, guidance=3.0, seed=5)
CPU = choose_placement("cpu", "sdpa")
OUTER = {  # of each kind of UNet: its layers that are computed in every call
    "still": ("down_blocks.0.resnets.0.", "up_blocks.1.resnets.0.", "up_blocks.1.resnets.1."),
    "xl": ("down_blocks.0.resnets.0.", "up_blocks.2.resnets.1.", "up_blocks.2.resnets.2."),
}  # fmt: skip
OUTER["motion"] = OUTER["still"]
ENDS = ("time_", "add_", "conv_in", "conv_norm_out", "conv_act", "conv_out")
Film = Callable[..., Latents]


@pytest.fixture(scope="module")
def models(tiny_models: Path) -> MotionModels:
    return load_motion(tiny_models / "checkpoints" / MOTION_NAME, CPU)


@pytest.fixture(scope="module")
def unets(tiny_models: Path, tiny_xl: Path, models: MotionModels) -> dict[str, nn.Module]:
    stills = {"still": tiny_models / "checkpoints" / STILL_NAME, "xl": tiny_xl}
    return {name: load_still(path, CPU).unet for name, path in stills.items()} | {"motion": models.unet}


@pytest.fixture(scope="module")
def film(models: MotionModels) -> Film:
    return film_of(models)


def film_of(models: MotionModels) -> Film:
    still = np.random.default_rng(1).random((48, 64, 3), np.float32)

    def film(every: int, relief: Relief | None = None, is_canceled: Callable[[], bool] = never, **change: Any) -> Latents:
        settings, relief = dataclasses.replace(SETTINGS, **change), relief or Relief()
        told = condition(models.vision, models.vae, Pictures(still[None]), settings)
        denoiser, size = dataclasses.replace(models.denoiser(), every=every), (settings.width, settings.height, settings.frames)
        scale, way = guidance_scale(settings.min_guidance, settings.guidance, settings.frames), Sampling.of(settings)
        return sample_motion(denoiser, told, told.without_still(), empty(*size), way, scale, relief=relief, is_canceled=is_canceled)

    return film


def given(kind: str, width: int = 8, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a UNet is called with, for both passes."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    if kind == "motion":
        return (noise(2, 3, 8, 6, width), torch.tensor(0.7), noise(2, 1, 8), torch.tensor([[6.0, 127.0, 0.0]] * 2)), {}
    more = {"text_embeds": noise(2, 10), "time_ids": torch.full((2, 6), 64.0)} if kind == "xl" else {}
    return (noise(2, 4, 8, width), torch.tensor(400.0), noise(2, 77, 20 if kind == "xl" else 8)), {"added_cond_kwargs": more}


def difference(one: Latents, other: Latents) -> float:
    """The largest, of the largest number there is."""
    return float(np.abs(one.samples - other.samples).max() / np.abs(one.samples).max())


@torch.inference_mode()
@pytest.mark.parametrize("width", [8, 7])
@pytest.mark.parametrize("kind", OUTER)
def test_where_nothing_has_changed_the_outer_layers_give_what_all_give(unets: dict[str, nn.Module], kind: str, width: int) -> None:
    unet, (told, more), reuse = unets[kind], given(kind, width), Reuse(unets[kind], 2)
    expected = unet(*told, **more).sample
    with reuse.listening(Relief()):
        for _ in range(2):
            reuse.begin_call()
            assert torch.equal(reuse(BOTH, *told, **more), expected)
    other, more = given(kind, width, seed=1)
    with reuse.listening(Relief()):
        reuse.begin_call()
        reuse(BOTH, *told, **more)
        reuse.begin_call()
        assert 0 < (reuse(BOTH, *other, **more) - unet(*other, **more).sample).abs().mean() < 0.5


@torch.inference_mode()
@pytest.mark.parametrize("kind", OUTER)
def test_only_the_outer_layers_are_called_in_between(unets: dict[str, nn.Module], kind: str) -> None:
    unet, (told, more), reuse, called = unets[kind], given(kind), Reuse(unets[kind], 3), []
    leaves = [(name, module) for name, module in unet.named_modules() if not list(module.children()) and list(module.parameters())]
    hooks = [module.register_forward_hook(lambda *_, name=name: called.append(name)) for name, module in leaves]
    counts = []
    with reuse.listening(Relief()):
        for _ in range(4):
            called.clear()
            reuse.begin_call()
            reuse(BOTH, *told, **more)
            counts.append(len(called))
            if len(counts) in (2, 3):
                assert {name for name in called if not name.startswith(ENDS)} == {
                    name for name, _ in leaves if name.startswith(OUTER[kind]) and name in called
                }
                assert all(any(name.startswith(layer) for name in called) for layer in OUTER[kind])
    for hook in hooks:
        hook.remove()
    assert counts[0] == counts[3] > counts[1] == counts[2] > 0


@torch.inference_mode()
def test_each_pass_has_features_of_its_own(unets: dict[str, nn.Module]) -> None:
    unet, (told, _), reuse = unets["motion"], given("motion"), Reuse(unets["motion"], 2)
    expected = unet(*told).sample
    alone = {name: [one if one.ndim == 0 else one[k : k + 1] for one in told] for k, name in enumerate((WITHOUT, WITH))}
    with reuse.listening(Relief()):
        reuse.begin_call()
        reuse(BOTH, *told)
        reuse.begin_call()
        for k, name in enumerate((WITHOUT, WITH)):
            assert (reuse((name,), *alone[name])[0] - expected[k]).abs().max() < 1e-5
        reuse.begin_call()
        for name in (WITHOUT, WITH):
            reuse((name,), *alone[name])
        reuse.begin_call()
        assert (reuse(BOTH, *told) - expected).abs().max() < 1e-5


def test_where_every_call_is_whole_nothing_is_listened_to_or_kept(
    models: MotionModels, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = film(1)
    monkeypatch.setattr(Reuse, "_keep", lambda *_: pytest.fail("something was kept"))
    monkeypatch.setattr("pipelines.reuse.outermost", lambda unet: pytest.fail("something was left out"))
    assert np.array_equal(film(1).samples, usual.samples)


@pytest.mark.parametrize("every", [2, 3])
def test_a_run_leaves_nothing_for_the_next(models: MotionModels, film: Film, every: int) -> None:
    exact, near = film(1), film(every)
    assert 1e-3 < difference(exact, near) < 0.3
    film(every, seed=6)
    assert np.array_equal(film(every).samples, near.samples)
    asked: list[int] = []
    with pytest.raises(Canceled):
        film(every, is_canceled=lambda: asked.append(0) or len(asked) > 3)
    assert np.array_equal(film(every).samples, near.samples)
    assert np.array_equal(film(1).samples, exact.samples)
    assert not any(module._forward_pre_hooks for module in models.unet.modules())


@pytest.mark.parametrize("change", [{}, {"guidance": 1.0}, {"sampler": "heun"}, {"sampler": "dpmpp_sde"}], ids=str)
def test_both_passes_together_and_one_after_the_other_agree(film: Film, change: dict) -> None:
    together, after = (film(2, Relief(Plan(is_batched=batched)), **change) for batched in (True, False))
    assert difference(together, after) < 1e-3


def test_passes_that_are_parted_on_the_way_for_want_of_memory_go_on_with_their_features(
    film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, calls, plain = film(2), [], Reuse.__call__

    def short(self: Reuse, passes: tuple[str, ...], *told: Any, **more: Any) -> Tensor:
        calls.append(passes)
        if len(calls) > 1 and passes == BOTH:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, passes, *told, **more)

    monkeypatch.setattr(Reuse, "__call__", short)
    relief = Relief()
    assert difference(film(2, relief), expected) < 1e-4
    assert "one pass of the model at a time" in " ".join(relief.notes)
    assert calls[:4] == [BOTH, BOTH, (WITHOUT,), (WITH,)]


def test_calls_are_counted_and_not_steps(models: MotionModels, film: Film) -> None:
    counted: list[int] = []
    hook = models.unet.mid_block.register_forward_hook(lambda *_: counted.append(1))
    film(2, sampler="heun", guidance=1.0)  # two calls a step, but for the last
    hook.remove()
    assert len(counted) == 4


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_is_streamed_is_computed_whole_and_that_is_said(tiny_models: Path, when: str) -> None:
    models = load_motion(tiny_models / "checkpoints" / MOTION_NAME, choose_placement("cpu", "sdpa"))
    film, relief, asked = film_of(models), Relief(), []

    def streams() -> bool:
        asked.append(0)
        if when == "before" or len(asked) == 4:
            stream(models.unet, torch.device("cpu"))
        return False

    exact = film(1)
    found = film(4, relief, streams)
    assert relief.has_seams
    assert "No features were reused" in relief.notes[-1]
    assert (difference(found, exact) < 1e-5) == (when == "before")


def test_the_last_block_is_compiled_again_after_it(models: MotionModels, film: Film) -> None:
    last = models.unet.up_blocks[-1]
    last._compiled_call_impl = lambda *_, **__: pytest.fail("it would not be heard what comes up")
    try:
        film(2)
        assert last._compiled_call_impl is not None
        assert outermost(models.unet).up_blocks[0]._compiled_call_impl is None
    finally:
        last._compiled_call_impl = None


def test_a_still_too(tiny_models: Path) -> None:
    models = load_still(tiny_models / "checkpoints" / STILL_NAME, CPU)
    told = [encode_prompt(models.encoders(), text) for text in ("a boat", "")]
    way = Sampling(3, 4, 5.0, "dpmpp_2m", "karras")
    made = {
        (every, batched): sample_still(
            dataclasses.replace(models.denoiser(), every=every), *told, empty(64, 48), way, relief=Relief(Plan(is_batched=batched))
        )
        for every in (1, 2)
        for batched in (True, False)
    }
    assert 1e-3 < difference(made[1, True], made[2, True]) < 0.3
    assert difference(made[2, True], made[2, False]) < 1e-4


def test_who_asks_for_nothing_gets_whole_calls(models: MotionModels) -> None:
    assert Reuse(models.unet).every == models.denoiser().every == 1


@pytest.mark.demo
def test_the_demos_film_stays_near() -> None:
    demo = load_motion(BUNDLED / DEMO_MOTION, CPU)
    film = film_of(demo)
    exact, *near = (film(every, width=96, height=64, frames=6, steps=8, guidance=2.0).samples for every in (1, 2, 3))
    spread = float(exact.max() - exact.min())
    psnr = [20 * math.log10(spread) - 10 * math.log10(float(np.square(one - exact).mean())) for one in near]
    assert psnr[0] > 32
    assert psnr[1] > 22
    assert max(psnr) < 80


def test_features_go_on_as_they_did_between_the_last_two_whole_calls(unets: dict[str, nn.Module]) -> None:
    reuse = Reuse(unets["still"], 2)
    reuse._kept = {WITH: [(0, torch.tensor([1.0])), (2, torch.tensor([3.0]))], WITHOUT: [(2, torch.tensor([7.0]))]}
    for number in (3, 4):
        reuse._number = number
        assert reuse._expected(WITH) == number + 1
        assert reuse._expected(WITHOUT) == 7  # of one nobody knows where it goes


@torch.inference_mode()
@pytest.mark.parametrize(("sampler", "kept"), [("heun", [2, 4]), ("euler_ancestral", [4])])
def test_of_the_last_whole_calls_features_are_kept_once_each(unets: dict[str, nn.Module], sampler: str, kept: list[int]) -> None:
    told, more = given("still")
    reuse = Reuse(unets["still"], 2, sampler)
    with reuse.listening(Relief()):
        for _ in range(5):
            reuse.begin_call()
            for _ in range(2):  # the first had not enough memory
                reuse(BOTH, *told, **more)
        assert [number for number, _ in reuse._kept[WITH]] == kept
    assert reuse._kept == {}
