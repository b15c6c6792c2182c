from __future__ import annotations

import json
import sys

import pytest

from benchmarks import growth
from benchmarks.growth import Film
from tests.conftest import MOTION_NAME, STILL_NAME


@pytest.mark.long
def test_films_of_several_sizes_are_made_told_before_and_fitted(tmp_path, monkeypatch, capsys, tiny_models):
    arguments = ["--models", str(tiny_models), "--still", STILL_NAME, "--motion", MOTION_NAME]
    monkeypatch.setattr(sys, "argv", ["growth", "--sides", "32,64", "--frames", "2", "--steps", "1,2", *arguments])
    assert growth.main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["films"], found["told"]) == (4, 3)  # nothing is known of the first
    assert {"still", "motion"} <= set(found["growth"])


def test_the_fit_finds_what_grows():
    films = []
    for side in (8, 64, 128, 256):
        stages = {"motion": 1 + 2e-6 * side**2 * 6, "encoding": 0.5 + 1e-6 * side**2 * 2}
        films.append(Film(side, 2, 3, None, 0.0, stages, {"motion": side**2 * 6}))
    found = growth.growth(films)
    assert found["motion"] == pytest.approx({"fixed_seconds": 1.0, "seconds_per_million": 2.0, "r_squared": 1.0})
    assert found["encoding"] == pytest.approx({"fixed_seconds": 0.5, "seconds_per_million": 1.0, "r_squared": 1.0})


def test_what_was_told_is_compared_with_what_it_took():
    films = [Film(8, 2, 1, told, 10.0, {}, {}) for told in (None, 11.0, 5.0)]
    assert growth.misses(films) == pytest.approx([0.1, -0.5])
