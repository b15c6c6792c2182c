from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from errors import MemoryExhaustedError, UnknownNameError
from pipelines import pieces
from pipelines.memory import ONE_STAYS
from pipelines.pieces import Demand, Plan, Relief, choose_plan, decoding_cuts, fewer_stay, one_pass

CARD, CPU = torch.device("cuda"), torch.device("cpu")
GIB = 2**30
# Stable Diffusion 1 and Stable Video Diffusion XT in half precision: 25 frames of 1024x576 from a still of 1280x720.
REAL = Demand(
    weights=round(6.2 * GIB), largest=round(2.84 * GIB), encoder=round(1.18 * GIB), still_positions=160 * 90, frame_positions=128 * 72,
    frames=25, item_bytes=2, vae_item_bytes=2, is_temporal=True,
)  # fmt: skip
TWELVE, PICTURE = decoding_cuts(12, 96, 80), decoding_cuts(1, 96, 80)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[float | None], None]:
    def set_free(gib: float | None) -> None:
        monkeypatch.setattr(pieces, "free_bytes", lambda device: None if gib is None else round(gib * GIB))

    return set_free


@pytest.mark.parametrize(
    ("gib", "residence", "is_batched"),
    [(24, "all", True), (17, "all", False), (14, "one", True), (12, "one", False), (8, "streamed", False)],
)
def test_the_first_cut_that_fits_is_taken(free: Callable, gib: float, residence: str, is_batched: bool) -> None:
    free(gib)
    plan = choose_plan(REAL, CARD)
    assert (plan.residence, plan.is_batched) == (residence, is_batched)
    assert f"of {0.9 * gib:.1f} GiB" in plan.reason


def test_a_limit_below_what_is_free_counts(free: Callable) -> None:
    free(80)
    assert choose_plan(REAL, CARD, limit_gib=14).residence == "one"
    free(14)
    assert choose_plan(REAL, CARD, limit_gib=80).residence == "one"


def test_on_a_cpu_there_is_nowhere_else_to_put_models(free: Callable) -> None:
    free(3)
    plan = choose_plan(REAL, CPU)
    assert (plan.residence, plan.is_batched) == ("all", False)
    assert "may need" in plan.reason


@pytest.mark.parametrize(("level", "residence"), [("high", "all"), ("medium", "one"), ("low", "streamed")])
def test_a_level_that_is_asked_for_is_taken(free: Callable, level: str, residence: str) -> None:
    free(80)
    assert choose_plan(REAL, CARD, level).residence == residence
    with pytest.raises(UnknownNameError, match="auto, high, medium, low"):
        choose_plan(REAL, CARD, "ultra")


def test_where_nobody_knows_what_is_free_everything_stays(free: Callable) -> None:
    free(None)
    assert choose_plan(REAL, CARD) == Plan()
    assert choose_plan(REAL, CARD, limit_gib=14).residence == "one"
    free(0)
    assert choose_plan(REAL, CARD).residence == "streamed"


def test_models_that_are_kept_count_as_room(free: Callable) -> None:
    free(10)
    assert choose_plan(REAL, CARD).residence == "one"
    assert choose_plan(REAL, CARD, held=14 * GIB).residence == "all"


def test_levels_on_a_cpu_move_nothing(free: Callable) -> None:
    for level, is_batched in {"high": True, "medium": False, "low": False}.items():
        plan = choose_plan(REAL, CPU, level)
        assert (plan.residence, plan.is_batched) == ("all", is_batched)


def test_the_estimate_is_near_what_is_known_of_the_real_models() -> None:
    """Activations computed from the layers: 9.27 GiB for both passes of 25 frames of 1024x576, 5.25 GiB for one, and 1.13 GiB a frame
    in the temporal decoder; of weights 6.2 GiB."""
    known = {Plan(): 6.2 + 9.27, Plan(is_batched=False, together=4): 6.2 + 5.25, Plan(is_batched=False): 6.2 + 8 * 1.13}
    for plan, gib in known.items():
        assert REAL.bytes(plan) / GIB == pytest.approx(gib, rel=0.03)
    assert REAL.activations(Plan())["still"] / GIB == pytest.approx(1.32, rel=0.1)  # its decoder; both passes of the UNet need 0.95
    exact = dataclasses.replace(REAL, vae_item_bytes=4)  # an autoencoder in float32
    assert exact.activations(Plan())["decoding"] == 2 * REAL.activations(Plan())["decoding"]


def test_what_is_left_to_do_needs_its_decoder_and_what_has_yet_to_come() -> None:
    assert REAL.finishing(Plan()) == REAL.activations(Plan())["decoding"]
    assert REAL.finishing(Plan(ONE_STAYS)) == REAL.activations(Plan(ONE_STAYS))["decoding"] + REAL.largest
    still = dataclasses.replace(REAL, frame_positions=0, frames=1)
    assert still.finishing(Plan()) / GIB == pytest.approx(1.34, rel=0.01)
    assert (Relief(demand=still).finishing(), Relief().finishing()) == (still.finishing(Plan()), 0)


def chain(plan: Plan, smaller: Callable) -> list[Plan]:
    found = []
    while plan := smaller(plan):
        found.append(plan)
    return found


def test_cuts_become_smaller_to_an_end() -> None:
    assert [plan.is_batched for plan in chain(Plan(), one_pass)] == [False]
    assert [(plan.together, plan.tile) for plan in chain(Plan(), TWELVE)] == [(4, 0), (2, 0), (1, 0), (1, 64), (1, 32), (1, 16)]
    assert [plan.tile for plan in chain(Plan(), PICTURE)] == [64, 32, 16]
    assert [plan.tile for plan in chain(Plan(), decoding_cuts(1, 24, 32))] == [16]  # none that would hold it whole
    assert [plan.together for plan in chain(Plan(), decoding_cuts(3, 8, 8))] == [1]  # nor more frames than there are
    assert [plan.residence for plan in chain(Plan(), fewer_stay)] == ["one", "streamed"]


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_piece_that_does_not_fit_is_cut_smaller_until_it_does(error: Exception) -> None:
    relief, tried = Relief(), []

    def work(plan: Plan) -> str:
        tried.append((plan.together, plan.tile))
        if plan.together > 1:
            raise error
        return "done"

    assert relief("decoding", work, TWELVE) == "done"
    assert tried == [(8, 0), (4, 0), (2, 0), (1, 0)]
    assert relief.notes[-1] == "Memory ran out while frames were decoded; it went on frame by frame."
    assert relief("decoding", lambda plan: plan.together, TWELVE) == 1  # the next piece begins where this one ended
    assert relief("still", lambda plan: plan.together, TWELVE) == 8  # another phase does not


def test_what_is_not_at_work_is_freed_before_anything_becomes_smaller() -> None:
    spare = iter([True, False])
    relief, tried = Relief(spare=lambda: next(spare)), []

    def work(plan: Plan) -> Plan:
        tried.append(plan)
        if len(tried) == 1:
            raise MemoryError
        return plan

    assert relief("motion", work, one_pass).is_batched
    assert relief.notes == ["Memory ran out while the motion was made; models that were not at work left it, and it went on."]


def test_when_nothing_smaller_is_left_it_is_said_with_what_would_fit() -> None:
    def fails(plan: Plan) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    relief = Relief(advice=lambda phase, plan: f"Try {plan.tile} {phase}.")
    with pytest.raises(MemoryExhaustedError, match=r"ran out while frames were decoded, even in the smallest pieces\. Try 16 decoding\."):
        relief("decoding", fails, PICTURE)
    with pytest.raises(MemoryExhaustedError, match=r"There is not enough memory for this film\. Try 0 motion\."), relief.guard():
        fails(relief.plan)


def test_other_errors_pass_at_once() -> None:
    for error in (RuntimeError("sizes do not match"), ValueError("x")):
        with pytest.raises(type(error), match=str(error)), Relief().guard():
            Relief()("still", lambda plan, error=error: (_ for _ in ()).throw(error), one_pass)


class Model(torch.nn.Linear):
    """Fits on the device from the `fits_at`-th try on. There is no second device here: it only says that it moves."""

    def __init__(self, fits_at: int = 1, device: str = "cpu") -> None:
        super().__init__(1, 1)
        self.tries, self.fits_at, self.where = 0, fits_at, torch.device(device)

    def parameters(self, recurse: bool = True):
        yield SimpleNamespace(device=self.where)

    def to(self, device: torch.device | str) -> None:
        self.where = torch.device(device)
        self.tries += self.where.type != "cpu"
        if self.where.type != "cpu" and self.tries < self.fits_at:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    down_blocks = ()

    def enable_group_offload(self, *args: object, **options: object) -> None: ...


def test_a_model_for_which_there_is_no_room_drives_others_out_and_else_comes_in_layers() -> None:
    idle = Model(device="meta")
    relief = Relief(device="meta", models=lambda: [idle])
    with relief.bring("motion", model := Model(fits_at=2)):
        assert model.where.type == "meta"
        assert idle.where.type == "cpu"
    assert model.where.type == "cpu"
    assert relief.notes == ["Memory ran out while the motion was made; models that were not at work left it, and it went on."]
    with relief.bring("motion", model := Model(fits_at=9)):
        assert model.is_streamed
    assert relief.notes[-1] == "Memory ran out while the motion was made; it went on with one layer at a time on the device."


def test_nothing_of_a_failed_try_is_kept_not_even_by_the_error() -> None:
    made: list[weakref.ref] = []

    def work(plan: Plan) -> None:
        activations = torch.zeros(1000)
        made.append(weakref.ref(activations))
        if len(made) > 1:
            assert made[-2]() is None  # gone before the next try begins
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(MemoryExhaustedError) as caught:
        Relief()("decoding", work, TWELVE)
    gc.collect()
    assert len(made) == 7
    assert all(reference() is None for reference in made)
    assert caught.value.__context__ is None
