from __future__ import annotations

import json

import pytest

from benchmarks import ahead
from tests.conftest import MOTION_NAME, STILL_NAME

SMALL = ["--width", "64", "--height", "48", "--steps", "1", "--rounds", "1", "--jobs", "2"]


@pytest.mark.parametrize("same_models", [False, True])
@pytest.mark.parametrize("is_film", [False, True], ids=["stills", "films"])
def test_a_queue_is_done_in_every_way_and_makes_the_same(same_models, is_film, tiny_models, capsys):
    arguments = ["--still", str(tiny_models / "checkpoints" / STILL_NAME), *SMALL, *(["--same-models"] if same_models else [])]
    if is_film:
        arguments += ["--motion", str(tiny_models / "checkpoints" / MOTION_NAME), "--frames", "2", "--motion-steps", "1"]
    assert ahead.main(arguments) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["is_same"]
    assert [(row["way"], row["jobs"]) for row in found["rows"]] == [(way, 2) for way in ahead.WAYS]
    assert all(row["seconds"] > row["loading_s"] >= 0 for row in found["rows"])
    assert (found["rows"][0]["loading_s"] < 0.01) == same_models
