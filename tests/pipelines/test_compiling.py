"""Networks that are compiled: with a backend that traces as the real one does, and then runs what it has traced as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from errors import InputError
from pipelines import compiling
from pipelines.lean_motion import told_once
from pipelines.memory import choose_placement, place, stream
from pipelines.pieces import Relief
from pipelines.reuse import WITH, Reuse
from pipelines.savings import ALL
from tests.conftest import TINY_MOTION_UNET


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    yield
    torch._dynamo.reset()


@pytest.mark.long
@torch.inference_mode()
def test_a_compiled_network_computes_the_same_for_each_size_until_it_is_streamed() -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    torch.manual_seed(3)
    unet = place(UNetSpatioTemporalConditionModel(**TINY_MOTION_UNET), choose_placement("cpu", "sdpa"))
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    token, ids = torch.randn(2, 1, 8), torch.tensor([[6.0, 127.0, 0.0]] * 2)

    def computed(x: torch.Tensor) -> torch.Tensor:
        return unet(x, torch.tensor(0.7), told_once(unet, token, x.shape[1], ALL), ids).sample

    films = [torch.randn(2, frames, 8, 8, width) for frames, width in ((3, 6), (2, 8))]
    plain = [computed(x) for x in films]
    compiling.compile_blocks(unet)
    for x, expected in zip(films, plain, strict=True):
        torch.testing.assert_close(computed(x), expected, rtol=1e-5, atol=1e-5)
    assert len(torch._dynamo.utils.counters["stats"]) > 0
    assert torch._dynamo.utils.counters["graph_break"] == {}  # whole blocks
    assert all(block._compiled_call_impl for block in blocks)
    stream(unet, torch.device("cpu"))
    assert not any(block._compiled_call_impl for block in blocks)


@pytest.mark.long
@torch.inference_mode()
def test_a_compiled_network_reuses_its_deep_features_too() -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    torch.manual_seed(3)
    unet = place(UNetSpatioTemporalConditionModel(**TINY_MOTION_UNET), choose_placement("cpu", "sdpa"))
    given = [(torch.randn(1, 3, 8, 8, 6), torch.tensor(0.7), torch.randn(1, 1, 8), torch.tensor([[6.0, 127.0, 0.0]])) for _ in range(3)]

    def computed() -> list[torch.Tensor]:
        reuse, found = Reuse(unet, 2), []
        with reuse.listening(Relief()):
            for one in given:
                reuse.begin_call()
                found.append(reuse((WITH,), *one))
        return found

    plain = computed()
    compiling.compile_blocks(unet)
    for found, expected in zip(computed(), plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert all(block._compiled_call_impl for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks))


def test_without_a_compiler_it_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    choose_placement("cpu", is_compiled=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="wants a C\\+\\+ compiler"):
        choose_placement("cpu", is_compiled=True)
    choose_placement("cpu")
