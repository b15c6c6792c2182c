from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from errors import InputError, UnknownNameError
from pipelines import memory
from pipelines.attention import KERNELS, Timed
from pipelines.memory import ONE_STAYS, STREAMED, choose_placement, on_device, place, stream


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_card_everything_is_float32_on_the_cpu() -> None:
    placement = choose_placement()
    described = placement.describe()
    assert described.items() >= {"device": "cpu", "dtype": "float32", "attention": "sdpa"}.items()
    assert "no CUDA device" in described["reason"]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device: str) -> None:
    with pytest.raises(InputError, match=rf"There is no {device} device.*Choose one of: cpu"):
        choose_placement(device)


@pytest.mark.usefixtures("ampere")
def test_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="There is no cuda:2 device"):
        choose_placement("cuda:2")


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(UnknownNameError, match="auto, cuda, cuda:0, mps, cpu"):
        choose_placement("tpu")
    with pytest.raises(UnknownNameError, match="auto, sdpa, xformers, flash, cudnn, efficient"):
        choose_placement(attention="math")


@pytest.mark.usefixtures("no_gpu")
def test_xformers_without_cuda_is_refused_when_asked_for() -> None:
    with pytest.raises(InputError, match="xFormers cannot be used here: no CUDA device"):
        choose_placement(attention="xformers")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | str]:
    """What is measured of each, in seconds, or what is wrong with it."""
    found: dict[str, float | str] = {"xformers": "not installed", "sdpa": 2.0}

    def measured(device: torch.device, dtype: torch.dtype, names: Iterable[str] = KERNELS, cases: object = ()) -> list[Timed]:
        assert (device.type, dtype) == ("cuda", torch.float16)
        told = {name: found.get(name, "No available kernel") for name in names}
        return [Timed(name, None, one) if isinstance(one, str) else Timed(name, one) for name, one in told.items()]

    monkeypatch.setattr(memory, "measured", measured)
    monkeypatch.setattr(memory, "measured_once", lambda device, dtype, file: measured(device, dtype))
    return found


@pytest.mark.usefixtures("ampere", "kernels")
def test_a_card_runs_half_precision_and_the_autoencoder_in_bfloat16() -> None:
    placement = choose_placement()
    assert (placement.device.type, placement.dtype, placement.vae_dtype) == ("cuda", torch.float16, torch.bfloat16)
    assert placement.attention == "sdpa"


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"xformers": 2.0}, "xformers"),
        ({"xformers": 2.05}, "xformers"),  # as good as equal
        ({"xformers": 2.4}, "sdpa"),
        ({"xformers": 1.9, "cudnn": 1.0, "flash": 1.02}, "flash"),
        ({"xformers": 1.9, "cudnn": 1.0, "flash": 1.3}, "cudnn"),
        ({"sdpa": "no"}, "sdpa"),
    ],
)
def test_on_a_card_the_quickest_kernel_is_taken(kernels: dict[str, float | str], found: dict[str, float | str], chosen: str) -> None:
    kernels |= found
    placement = choose_placement()
    assert placement.attention == chosen
    told = [f"{name} {1000 * s:.2f} ms" for name, s in sorted(kernels.items(), key=lambda item: str(item[1])) if isinstance(s, float)]
    assert placement.reason.startswith("A100: half precision")
    assert placement.reason.partition("as measured here: ")[2].partition(";")[0] == ", ".join(told)


@pytest.mark.usefixtures("ampere")
def test_a_kernel_that_is_asked_for_is_taken_if_it_works(kernels: dict[str, float | str]) -> None:
    assert choose_placement(attention="sdpa").attention == "sdpa"
    assert "xformers: not installed" in choose_placement().reason
    with pytest.raises(InputError, match="xFormers cannot be used here: not installed"):
        choose_placement(attention="xformers")
    with pytest.raises(InputError, match="The attention kernel 'cudnn' cannot be used here: No available kernel"):
        choose_placement(attention="cudnn")
    kernels["cudnn"] = 9.0
    assert choose_placement(attention="cudnn").attention == "cudnn"


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize(
    ("asked", "network", "vae"), [("float32", torch.float32, torch.float32), ("float16", torch.float16, torch.bfloat16)]
)
def test_a_precision_that_is_asked_for_is_taken(asked: str, network: torch.dtype, vae: torch.dtype) -> None:
    placement = choose_placement("cuda", "sdpa", asked)
    assert (placement.dtype, placement.vae_dtype) == (network, vae)
    assert f"{asked} as asked" in placement.reason


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize("card", ["NVIDIA GeForce GTX 1660 Ti", "NVIDIA T600 Laptop GPU"])
def test_cards_that_fail_in_half_precision_get_float32(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    placement = choose_placement("cuda", "sdpa")
    assert placement.dtype == placement.vae_dtype == torch.float32
    assert "float16 fails on this card" in placement.reason


class Moved(torch.nn.Linear):
    """Says that it is where it was moved to: there is no second device here."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.moves, self.fails = [], False

    def parameters(self, recurse: bool = True):
        where = self.moves[-1] if self.moves else torch.device("cpu")
        yield types.SimpleNamespace(device=where)

    def to(self, device: torch.device) -> Moved:
        self.moves.append(torch.device(device))
        if self.fails and self.moves[-1].type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self


CARD = torch.device("meta")


def test_a_model_comes_for_its_work_and_leaves_after_it() -> None:
    model = Moved()
    with on_device(model, CARD):
        assert model.moves == [CARD]
    assert model.moves[-1].type == "cpu"
    with pytest.raises(KeyError), on_device(model, CARD):
        raise KeyError
    assert model.moves[-1].type == "cpu"


def test_a_model_that_is_there_stays_and_one_that_does_not_fit_goes_back_whole() -> None:
    model = Moved()
    model.moves.append(CARD)
    with on_device(model, CARD):
        pass
    assert model.moves == [CARD]
    model = Moved()
    model.fails = True
    with pytest.raises(torch.OutOfMemoryError), on_device(model, CARD):
        pass
    assert model.moves[-1].type == "cpu"


def test_weights_wait_at_home() -> None:
    placement = choose_placement("cpu")
    assert placement.home("all") == placement.device
    assert placement.home(ONE_STAYS) == placement.home(STREAMED) == torch.device("cpu")


@torch.inference_mode()
def test_a_streamed_model_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=8, attention_head_dim=2, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    given = torch.randn(1, 4, 8, 8), torch.tensor(5.0), torch.randn(1, 3, 8)
    before = unet(*given).sample
    place(unet, choose_placement("cpu"), STREAMED)
    assert torch.equal(unet(*given).sample, before)
    assert not stream(unet, torch.device("cpu"))  # it is already
    monkeypatch.setattr(memory, "move", lambda *args: pytest.fail("its layers are brought by themselves"))
    with on_device(unet, CARD):
        pass


def test_the_host_has_what_its_control_group_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2000 kB\n")
    assert memory._free_host_bytes(tmp_path / "meminfo", tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    (tmp_path / "memory.stat").write_text("anon 60\ninactive_file 30\nactive_file 10\n")
    assert memory._free_host_bytes(tmp_path / "meminfo", tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1100\n")
    assert memory._free_host_bytes(tmp_path / "meminfo", tmp_path) == 1030  # the cache of files is given back
    assert memory._free_host_bytes(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_limit_holds_the_process_to_its_part_of_the_card(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: types.SimpleNamespace(total_memory=24 * 2**30))
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda part, index: asked.append((part, index)), raising=False)
    for gib in (6, 0, 99):
        memory.limit(torch.device(name), gib)
    index = int(name == "cuda:1")
    assert asked == [(0.25, index), (1.0, index), (1.0, index)]


def test_what_is_spare_is_free_and_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, card = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 9 * memory.GIB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * memory.GIB)
    assert [memory.spare_bytes(card, limit) / memory.GIB for limit in (0, 4, 20)] == [9, 1, 9]
    assert memory.spare_bytes(cpu, 4) == 9 * memory.GIB
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert memory.spare_bytes(cpu) == 0


def test_another_thread_has_a_stream_of_its_own_on_a_card_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            done.append(device)

        def synchronize(self) -> None:
            done.append("waited")

    @contextmanager
    def stream(one: Stream) -> Iterator[None]:
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: one)
        done.append("in")
        yield
        done.append("out")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    for device in (torch.device("cpu"), torch.device("cuda:1")):
        with memory.beside(device):
            memory.ready(device)
    assert done == [torch.device("cuda:1"), "in", "waited", "out"]


def test_xformers_is_for_attention_over_pictures_alone() -> None:
    from diffusers import AutoencoderKL, UNetSpatioTemporalConditionModel

    motion = {
        "block_out_channels": (32, 64), "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), "cross_attention_dim": 8,
        "num_attention_heads": (2, 2), "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24, "layers_per_block": 1,
    }  # fmt: skip
    placement = memory.Placement(CARD, torch.float16, torch.bfloat16, "xformers", "")
    unet = place(UNetSpatioTemporalConditionModel(**motion), placement)
    names = {name: type(processor).__name__ for name, processor in unet.attn_processors.items()}
    assert set(names.values()) == {"XFormersAttnProcessor", "AttnProcessor2_0"}
    assert all(("temporal" in name) == (processor == "AttnProcessor2_0") for name, processor in names.items())
    vae = place(AutoencoderKL(block_out_channels=(8,), norm_num_groups=4), placement)  # its heads are wider than kernels take
    assert {type(processor).__name__ for processor in vae.attn_processors.values()} == {"AttnProcessor2_0"}
