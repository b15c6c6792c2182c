from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from api.details import details
from jobs.job import VERIFIES, Job, JobStatus
from workflows.templates import fill, find_template, templates

TEMPLATE = find_template("text_to_film")


@pytest.fixture
def job() -> Job:
    graph = fill(TEMPLATE, {"prompt": "a red boat", "seed": 2**64 - 1, "motion_seed": 7})
    return Job("a", 1, JobStatus.SUCCEEDED, "", "boat", (), graph, {"template": "text_to_film"}, None, "", None, 0.0)


def by_place(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["place"]: one for one in found["settings"]}


def test_prompts_come_first_then_seeds_as_text(job: Job) -> None:
    found = details(job, templates())
    assert (found["template"], found["verifies"]) == ("text_to_film", None)
    assert [(one["place"], one["kind"], one["value"]) for one in found["settings"][:4]] == [
        ("6.text", "prompt", "a red boat"), ("7.text", "prompt", ""), ("3.seed", "seed", "18446744073709551615"), ("13.seed", "seed", "7"),
    ]  # fmt: skip
    assert by_place(found)["16.motion_bucket_id"]["title"].keys() == {"en", "zh"}
    assert (
        by_place(found)["16.motion_bucket_id"]["group"]
        == next(one for one in TEMPLATE.groups if one.fields[0].name == "motion_bucket_id").title
    )
    assert by_place(found)["19.pingpong"]["value"] == "false"
    assert not [one for one in found["settings"] if one["name"] in ("model", "clip", "images")]  # links are no settings
    json.dumps(found)


def test_what_no_template_shows_has_its_own_name_alone(job: Job) -> None:
    graph = {
        "3": {"class_type": "Strange", "inputs": {"seed": 5, "shown": "x", "list": [1, 2, 3]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a"}, "_meta": {"title": "Mine"}}, "7": 5, "8": {"inputs": []},
    }  # fmt: skip
    found = details(replace(job, workflow=graph, extra={"template": 3, VERIFIES: "b"}), templates())
    assert (found["template"], found["verifies"]) == (None, "b")
    assert by_place(found).keys() == {"3.seed", "3.shown", "6.text"}
    assert (by_place(found)["3.shown"]["title"], by_place(found)["3.shown"]["node"]) == ({}, "Strange")
    assert (by_place(found)["6.text"]["title"]["en"], by_place(found)["6.text"]["node"]) == ("What it shows", "Mine")
