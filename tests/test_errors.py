from __future__ import annotations

import copy
import pickle

import pytest

from errors import Canceled, InputError, MemoryExhaustedError, UnknownJobError, UnknownNameError
from workflows.graph import WorkflowError


@pytest.mark.parametrize("error", [
    InputError("Wrong.", "Mend it."), UnknownNameError("sampler", "eular", ["euler", "heun"]), UnknownJobError("j"), Canceled(),
    MemoryExhaustedError("Full."), WorkflowError("invalid_prompt", "No", node_errors={}),
])  # fmt: skip
def test_an_error_is_the_same_in_another_process(error: InputError) -> None:
    error.node, error.details = "3", {"phase": "motion"}
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
