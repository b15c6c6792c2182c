from __future__ import annotations

import random

import numpy as np
import pytest

from training.drawing import COLOURS, PLACES
from training.world import HOMES, NAMES, SUBJECTS, UNSEEN, film, is_held_out, random_scene


def test_a_scene_is_drawn_the_same_every_time_and_at_every_size() -> None:
    scene = random_scene(random.Random(1))
    assert np.array_equal(scene.frame(0.5, 96, 64), scene.frame(0.5, 96, 64))
    small, large = scene.frame(0, 64, 64).astype(float), scene.frame(0, 256, 256).astype(float)
    averaged = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(small - averaged).mean() < 6


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_seen_in_its_colour_where_it_says_it_is(subject: str) -> None:
    rng = random.Random(2)
    for _ in range(8):
        scene = random_scene(rng, subject=subject)
        x, y = scene.position(0)
        frame = scene.frame(0, 192, 192).astype(int)
        near = frame[max(0, int(192 * y) - 30) : int(192 * y) + 30, max(0, int(192 * x) - 30) : int(192 * x) + 30]
        distance = np.abs(near - COLOURS[scene.colour]).sum(-1)
        assert (distance < 30).mean() > 0.05


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_moves_and_faster_with_a_higher_motion_bucket(subject: str) -> None:
    scene = random_scene(random.Random(3), subject=subject)
    assert abs(np.diff(film(scene, 3, 64, 64).astype(int), axis=0)).mean() > 0.05

    def way(motion_bucket: int) -> float:
        points = np.array([scene.position(k / 7 * motion_bucket / 127) for k in range(14)])
        return float(np.abs(np.diff(points, axis=0)).sum())

    assert way(200) > 2 * way(40)


def test_a_rocket_rises_and_a_car_goes_where_it_faces() -> None:
    rng = random.Random(4)
    rocket, car = random_scene(rng, subject="rocket"), random_scene(rng, subject="car")
    assert rocket.position(1)[1] < rocket.position(0)[1] - 0.1
    assert (car.position(1)[0] - car.position(0)[0]) * car.side > 0.1


def test_captions_name_the_subject_and_mostly_the_colour() -> None:
    rng, named = random.Random(5), 0
    for _ in range(300):
        scene = random_scene(rng)
        text = scene.caption(rng).lower()
        assert any(name in text for name in NAMES.get(scene.subject, (scene.subject,)))
        named += scene.colour in text
    assert 230 < named < 290


def test_training_never_draws_a_held_out_combination_and_the_evaluation_only_those() -> None:
    rng = random.Random(6)
    for held_out in (False, True):
        for _ in range(300):
            scene = random_scene(rng, held_out=held_out)
            assert is_held_out(scene.subject, scene.colour, scene.place) == held_out
            assert scene.place in HOMES[scene.subject]
            assert scene.colour not in UNSEEN.get(scene.place, ())


def test_every_subject_has_held_out_combinations() -> None:
    for subject in SUBJECTS:
        pairs = [(c, p) for p in HOMES[subject] for c in COLOURS if c not in UNSEEN.get(p, ())]
        assert 0 < sum(is_held_out(subject, c, p) for c, p in pairs) < len(pairs) / 3
    assert set(UNSEEN) <= set(PLACES)
