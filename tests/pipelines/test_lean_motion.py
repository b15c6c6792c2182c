from __future__ import annotations

import copy
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from pipelines.lean_blocks import LeanSpatioTemporalResnet, OverTime
from pipelines.lean_motion import LeanTransformer, told_once
from pipelines.memory import STREAMED, Placement, choose_placement, place, stream
from pipelines.savings import ALL, NONE, Savings

sys.path.insert(0, str(Path(__file__).parent.parent))
from conftest import TINY_MOTION_UNET

FRAMES, FILMS = 3, 2
ROUNDING = 1e-5  # of outputs near 1: space and time are mixed in one pass instead of three, which rounds once instead of three times


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On several, kernels split a sum by its number of rows, and two numbers of rows may differ in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def on_cpu(savings: Savings) -> Placement:
    return choose_placement("cpu", "sdpa", savings=savings)


@pytest.fixture(scope="module")
def stock() -> nn.Module:
    from diffusers import UNetSpatioTemporalConditionModel

    torch.manual_seed(3)
    unet = UNetSpatioTemporalConditionModel(**TINY_MOTION_UNET | {"transformer_layers_per_block": 2}).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # or all mixers would be alike
    return unet.requires_grad_(False)


@pytest.fixture(scope="module")
def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two films that are told of different stills."""
    generator = torch.Generator().manual_seed(4)
    x, token = torch.randn(FILMS, FRAMES, 8, 8, 6, generator=generator), torch.randn(FILMS, 1, 8, generator=generator)
    return x, torch.tensor(0.7), token, torch.tensor([[6.0, 127.0, 0.0], [7.0, 40.0, 0.1]])


@torch.inference_mode()
def computed(stock: nn.Module, savings: Savings, given: tuple[Tensor, ...]) -> Tensor:
    x, timestep, token, ids = given
    unet = place(copy.deepcopy(stock), on_cpu(savings))
    return unet(x, timestep, told_once(unet, token, FRAMES, savings), ids).sample


@torch.inference_mode()
def test_without_savings_a_model_is_as_it_was(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    assert torch.equal(computed(stock, NONE, given), stock(*given).sample)


@torch.inference_mode()
def test_with_all_savings_it_computes_the_same_but_for_rounding(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    assert (computed(stock, ALL, given) - stock(*given).sample).abs().max() < ROUNDING


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("saving", ["folds", "keeps_positions"])
def test_what_is_the_same_in_every_call_is_computed_once_and_equal_to_the_bit(
    stock: nn.Module, given: tuple[Tensor, ...], saving: str
) -> None:
    assert torch.equal(computed(stock, ALL, given), computed(stock, dataclasses.replace(ALL, **{saving: False}), given))


def test_the_token_matters(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    x, timestep, token, ids = given
    other = computed(stock, ALL, (x, timestep, token.flip(0), ids))
    assert (other - computed(stock, ALL, given)).abs().max() > 100 * ROUNDING


def test_no_attention_to_the_still_is_left_in_a_call(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    x, timestep, token, ids = given
    unet = place(copy.deepcopy(stock), on_cpu(ALL))
    told = told_once(unet, token, FRAMES, ALL)
    for name, module in unet.named_modules():
        if re.search(r"transformer_blocks\.\d+\.(attn2|norm2)$|time_pos_embed$", name):
            module.forward = lambda *_, name=name, **__: pytest.fail(f"{name} was called")
    unet(x, timestep, told, ids)


@torch.inference_mode()
def test_frames_in_the_order_of_pixels_are_let_go_before_attention(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    """They are as large as all that a layer makes; held for its length they are a tenth of a gigabyte and more."""
    x, timestep, token, ids = given
    unet = place(copy.deepcopy(stock), on_cpu(ALL))
    entered, checked = [], []
    for name, block in unet.named_modules():
        if re.search(r"temporal_transformer_blocks\.\d+$", name):
            block.norm_in.register_forward_pre_hook(lambda _, given: entered.append(StorageWeakRef(given[0].untyped_storage())))
            block.attn1.register_forward_pre_hook(lambda *_: checked.append(entered[-1].expired()))
    unet(x, timestep, told_once(unet, token, FRAMES, ALL), ids)
    assert checked
    assert all(checked)


@torch.inference_mode()
def test_films_together_and_alone_are_the_same(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    x, timestep, token, ids = given
    unet = place(copy.deepcopy(stock), on_cpu(ALL))
    told = told_once(unet, token, FRAMES, ALL)
    both = unet(x, timestep, told, ids).sample
    alone = [unet(x[k : k + 1], timestep, told[k : k + 1], ids[k : k + 1]).sample for k in range(FILMS)]
    assert (both - torch.cat(alone)).abs().max() < ROUNDING


@torch.inference_mode()
def test_a_film_of_another_length_is_told_its_own_numbers(stock: nn.Module, given: tuple[Tensor, ...]) -> None:
    x, timestep, token, ids = given
    unet = place(copy.deepcopy(stock), on_cpu(ALL))
    told = told_once(unet, token, FRAMES + 2, ALL)
    expected = stock(x, timestep, token, ids).sample
    assert (unet(x, timestep, told, ids).sample - expected).abs().max() < ROUNDING


@torch.inference_mode()
@pytest.mark.parametrize("when", ["before the job", "between two calls"])
def test_a_streamed_model_computes_the_same_job_after_job(stock: nn.Module, given: tuple[Tensor, ...], when: str) -> None:
    x, timestep, token, ids = given
    expected = computed(stock, dataclasses.replace(ALL, packs_weights=False), given)
    unet = place(copy.deepcopy(stock), on_cpu(ALL), STREAMED if when == "before the job" else "all")
    for _ in range(2):
        told = told_once(unet, token, FRAMES, ALL)
        for _ in range(3):
            assert torch.equal(unet(x, timestep, told, ids).sample, expected)
            stream(unet, torch.device("cpu"))


def test_what_is_told_is_wider_than_the_token_even_of_a_small_model(stock: nn.Module) -> None:
    unet = place(copy.deepcopy(stock), on_cpu(ALL))
    for module in [m for m in unet.modules() if isinstance(m, LeanTransformer)][1:]:
        module.__class__ = nn.Module  # as if there were one
    wide = torch.zeros(1, 1, 8)
    assert told_once(unet, wide, 2, ALL).shape[-1] > 8


@torch.inference_mode()
def test_a_temporal_decoder_mixes_the_other_way_round() -> None:
    from diffusers.models.resnet import SpatioTemporalResBlock

    torch.manual_seed(0)
    for strategy, is_switched in (("learned", True), ("fixed", False), ("learned_with_images", False)):
        block = SpatioTemporalResBlock(32, 64, None, merge_factor=0.3, merge_strategy=strategy, switch_spatial_to_temporal_mix=is_switched)
        x, films = torch.randn(4, 32, 4, 6), torch.zeros(2, 2)
        expected = block.eval()(x, None, films)
        place(block, on_cpu(ALL))
        assert isinstance(block, LeanSpatioTemporalResnet)
        assert (block(x, None, films) - expected).abs().max() < ROUNDING


@torch.inference_mode()
def test_a_kernel_over_time_is_one_over_rows() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv3d(8, 12, (3, 1, 1), padding=(1, 0, 0)), torch.randn(2, 8, 5, 4, 6)
    expected = conv(x)
    place(conv, on_cpu(ALL))
    assert isinstance(conv, OverTime)
    assert (conv(x) - expected).abs().max() < 1e-6
    other = place(nn.Conv3d(8, 12, 3, padding=1), on_cpu(ALL))
    assert type(other) is nn.Conv3d
