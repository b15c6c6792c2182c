"""What is left out of the work because it changes nothing. No torch here.

All are on. They can be turned off so that each can be measured, and its result compared with the plain one: `python -m
benchmarks.savings`. They are no settings of a film, since no film depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Savings:
    """`folds`: the motion model's attention to the still, one token, is computed once a job instead of in every call. `keeps_positions`:
    so is what it is told of a frame's number. `skips_unconditional`: where guidance is 1 there is one pass. `spares_copies`: no divisions
    by 1, sums in place, frames reordered while they are added. `packs_weights`: on a CPU, large convolutions keep their weights in the
    order in which the processor's kernels read them, for as long as the size stays the same."""

    folds: bool = True
    keeps_positions: bool = True
    skips_unconditional: bool = True
    spares_copies: bool = True
    packs_weights: bool = True


ALL = Savings()
NONE = Savings(**{field.name: False for field in fields(Savings)})
