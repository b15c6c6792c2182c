from __future__ import annotations

from pathlib import Path

import pytest

import settings
from errors import InputError
from pipelines.parameters import FileSettings, MotionSettings, StillSettings, declarations


def film(*arguments: str) -> settings.FilmCommand:
    command = settings.parse(["film", *arguments])
    assert isinstance(command, settings.FilmCommand)
    return command


def test_every_declared_parameter_is_an_option() -> None:
    flags = {(option.owner, option.name) for option in settings._film_options()}
    for owner, settings_class in (("still", StillSettings), ("motion", MotionSettings), ("file", FileSettings)):
        assert {name for o, name in flags if o == owner} == declarations(settings_class).keys() - {"prompt"}


def test_what_is_given_arrives_where_it_belongs() -> None:
    command = film("a boat", "--steps", "3", "--motion-steps", "4", "--guidance", "2.5", "--no-metadata", "--fps", "9", "--pingpong")
    assert (command.still.prompt, command.still.steps, command.still.guidance) == ("a boat", 3, 2.5)
    assert (command.motion.steps, command.motion.fps) == (4, 9)
    assert (command.file.metadata, command.file.pingpong) == (False, True)


def test_jobs_alone_lists_them() -> None:
    for arguments in ([], ["--data-dir", "x"], ["--json"]):
        assert settings.parse(["jobs", *arguments]) == settings.parse(["jobs", "list", *arguments])


def test_the_still_has_the_films_size_unless_it_has_its_own() -> None:
    command = film("x", "--width", "320", "--height", "192")
    assert (command.still.width, command.still.height) == (command.motion.width, command.motion.height) == (320, 192)
    command = film("x", "--width", "320", "--still-width", "640", "--still-height", "384")
    assert (command.still.width, command.still.height, command.motion.width) == (640, 384, 320)


def test_one_seed_settles_both_stages_and_each_may_have_its_own() -> None:
    assert [(c.still.seed, c.motion.seed) for c in [film("x", "--seed", "7")]] == [(7, 7)]
    assert [(c.still.seed, c.motion.seed) for c in [film("x", "--seed", "0", "--motion-seed", "9")]] == [(0, 9)]
    assert film("--image", "a.png", "--seed", "7").motion.seed == 7


def test_seeds_that_are_not_given_are_drawn_small_enough_for_every_program() -> None:
    drawn = {seed for _ in range(20) for seed in (film("x").still.seed, film("x").motion.seed)}
    assert len(drawn) > 30
    assert max(drawn) < 2**32


def test_the_data_directory_is_the_options_then_the_environments_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STILLMOTION_DATA_DIR", raising=False)
    assert film("x").data_dir == Path("data")
    monkeypatch.setenv("STILLMOTION_DATA_DIR", "/srv/films")
    assert film("x").data_dir == Path("/srv/films")
    assert film("x", "--data-dir", "mine").data_dir == Path("mine")


@pytest.mark.parametrize("option", ["--steps", "--still-width", "--checkpoint", "--vae"])
def test_options_of_the_still_are_refused_when_a_picture_takes_its_place(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} belongs to the still"):
        film("--image", "a.png", option, "8")


def test_vae_and_loras_are_checked_as_soon_as_they_are_given() -> None:
    command = film("x", "--vae", "soft.safetensors", "--loras", "a:0.5, b")
    assert (command.still.vae, command.still.loras) == ("soft.safetensors", "a:0.5, b")
    with pytest.raises(InputError, match=r"^--loras has 'a:x', whose strength is no number"):
        film("x", "--loras", "a:x")


def test_abbreviated_options_are_not_guessed() -> None:
    with pytest.raises(InputError, match="--step"):
        film("x", "--step", "3")
