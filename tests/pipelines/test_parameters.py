from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from errors import InputError, UnknownNameError
from pipelines import encode, families, image_to_video, parameters, sampling, schedules
from pipelines.parameters import FileSettings, MotionSettings, StillSettings, check, declarations, parse_loras


@pytest.mark.parametrize("settings", [StillSettings(prompt=""), MotionSettings(), FileSettings()])
def test_the_defaults_are_valid(settings: Any) -> None:
    check(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (StillSettings(prompt="x", width=-8), "width is -8, but must be 16 to 16 376. Use 16."),
        (StillSettings(prompt="x", width=257), "width is 257, but must be a multiple of 8. Use 256."),
        (StillSettings(prompt="x", steps=0), "steps is 0, but must be 1 to 10 000. Use 1."),
        (StillSettings(prompt="x", seed=2**64), f"seed is {2**64}, but must be 0 to .*Use {2**64 - 1}."),
        (StillSettings(prompt="x", guidance=float("nan")), "guidance is nan, which is not a number."),
        (StillSettings(prompt="x", steps=2.5), "steps is 2.5, which is not a whole number."),
        (StillSettings(prompt="x", steps=True), "steps is True, which is not a whole number."),
        (StillSettings(prompt=3), "prompt is 3, which is no text."),
        (StillSettings(prompt="x" * 20_001), "prompt has 20001 characters; 20000 are the most."),
        (StillSettings(prompt="x", loras="a:b"), "loras has 'a:b', whose strength is no number from -100 to 100. Use about 0.5 to 1."),
        (StillSettings(prompt="x", loras="a, b:nan"), "loras has 'b:nan', whose strength is no number"),
        (StillSettings(prompt="x", loras="a:101"), "loras has 'a:101', whose strength is no number"),
        (StillSettings(prompt="x", loras=":0.5"), "loras has ':0.5' without a name. Give it as name:strength"),
        (StillSettings(prompt="x", loras=["a"]), "loras is .* which is no text."),
        (MotionSettings(frames=0), "frames is 0, but must be 1 to 4 096. Use 1."),
        (FileSettings(pingpong="yes"), "pingpong is 'yes'; it is either on or off."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_bounds_and_the_nearest_valid_one(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(settings)


def test_a_wrong_name_is_answered_with_the_right_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown sampler 'euler_a'\. Did you mean 'euler'.*dpmpp_2m"):
        check(StillSettings(prompt="x", sampler="euler_a"))


def test_the_message_says_what_the_person_knows_it_by() -> None:
    with pytest.raises(InputError, match=r"^--motion-steps is 0"):
        check(MotionSettings(steps=0), {"steps": "--motion-steps"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        (" , ", ()),
        ("soft", (("soft.safetensors", 1.0),)),
        ("anime/soft:0.6, sharp.safetensors : -1,", (("anime/soft.safetensors", 0.6), ("sharp.safetensors", -1.0))),
        ("detail-v1.5", (("detail-v1.5.safetensors", 1.0),)),
        ("old.pt:0.5", (("old.pt", 0.5),)),
        ("soft,soft:0", (("soft.safetensors", 1.0), ("soft.safetensors", 0.0))),
    ],
)
def test_loras_are_names_with_strengths(text: str, found: tuple) -> None:
    check(StillSettings(prompt="x", loras=text))
    assert parse_loras(text) == found


@pytest.mark.parametrize("settings_class", [StillSettings, MotionSettings, FileSettings])
def test_every_field_is_declared_and_has_help(settings_class: type) -> None:
    declared = declarations(settings_class)
    assert list(declared) == [field.name for field in dataclasses.fields(settings_class)]
    assert all(declaration.help for _, declaration, _ in declared.values())


def test_the_names_that_can_be_chosen_are_the_names_that_work() -> None:
    assert set(parameters.SAMPLERS) == set(sampling.SAMPLERS)
    assert set(parameters.SCHEDULES) == set(schedules.SCHEDULES)
    assert tuple(encode.WEBP_METHODS) == parameters.WEBP_METHODS
    assert (".safetensors", *families.PICKLES) == parameters.MODEL_ENDINGS
    for shape in parameters.GUIDANCE_SHAPES:
        image_to_video.guidance_scale(1.0, 2.0, 3, shape)


@pytest.mark.parametrize("value", [["soft"], {"soft": 1}, 5, True])
def test_loras_are_a_text(value: object) -> None:
    with pytest.raises(InputError, match=r"loras is .*, but must be a text"):
        parse_loras(value)
