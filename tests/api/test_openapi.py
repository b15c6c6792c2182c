"""Our OpenAPI document says what the server does: `schemathesis` makes requests from it, sound ones and others, and reads the answers
by it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jobs import database
from tests.api.house import House, living
from tests.api.test_jobs import GRAPH

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance,
    negative_data_rejection,
]  # fmt: skip
FEW = hypothesis.settings(
    max_examples=3, database=None, deadline=None, derandomize=True, phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_SYNCHRONOUS", "OFF")
        with living(tmp_path_factory.mktemp("data")) as house:
            yield house


@pytest.fixture(scope="module")
def job_ids(house: House) -> list[str]:
    """Of jobs that have ended, well and badly."""
    titles = ["a boat", "fail", "break", "a car"]
    made = [house.post("/api/jobs", {"workflow": GRAPH, "title": title}, headers={"Prefer": "wait=10"}).json() for title in titles]
    assert {job["status"] for job in made} == {"succeeded", "failed"}
    return [job["id"] for job in made]


@pytest.mark.long
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_documented(house: House, job_ids: list[str], mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(house.get("/openapi.json").json(), config=SchemathesisConfig())
    answers = {found.ok().label: statuses(found.ok(), mode, house.url, job_ids) for found in schema.get_all_operations()}
    assert len(answers) > 15
    good = {label for label, seen in answers.items() if seen & {200, 202}}
    if mode == GenerationMode.POSITIVE:
        assert len(good) >= 10  # a workflow is hardly ever made by chance, and what has ended is not canceled or moved
    else:
        assert len([label for label, seen in answers.items() if 400 in seen]) >= 10


def statuses(operation: Any, mode: GenerationMode, url: str, job_ids: list[str]) -> set[int]:
    """What was answered. Most requests are about jobs that there are."""
    chance, seen = random.Random(operation.label), set()

    @FEW
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if "job_id" in case.path_parameters and chance.random() < 0.7 and not _is_the_path_wrong(case):
            case.path_parameters["job_id"] = chance.choice(job_ids)
        seen.add(case.call_and_validate(base_url=url, checks=CHECKS, timeout=10).status_code)

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # there is nothing in it that could be wrong
        ask()
    return seen


def _is_the_path_wrong(case: Any) -> bool:
    """Then that is what has to be refused."""
    component = case.meta.components.get(ParameterLocation.PATH)
    return component is not None and component.mode == GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/films", r'{"prompt": "\ud800"}'), ("POST", "/api/films", r'{"prompt": "a", "title": "\ud800"}'),
        ("POST", "/api/films", r'{"\ud800": "a"}'), ("POST", "/api/films", r'{"prompt": "a\u0000b", "tags": ["\u0000"]}'),
        ("POST", "/api/films", r'{"prompt": "a", "tags": ["\udfff"]}'), ("POST", "/api/films", r'{"template": "\ud800"}'),
        ("POST", "/api/films", r'{"prompt": "a", "seed": ' + "9" * 4000 + "}"), ("POST", "/api/films", r'{"prompt": {"a": ["\ud800"]}}'),
        ("POST", "/api/jobs", r'{"workflow": {"\ud800": {"class_type": "\ud800", "inputs": {"\ud800": 1}}}}'),
        ("PATCH", "/api/jobs/{id}", r'{"title": "\ud800"}'), ("PATCH", "/api/jobs/{id}", r'{"tags": ["\ud800"]}'),
        ("POST", "/api/jobs/{id}/move", r'{"before": "\ud800"}'), ("GET", "/api/jobs/%ed%a0%80", ""),
        ("GET", "/api/jobs?text=%ed%a0%80", ""),
        ("GET", "/api/jobs/%00", ""), ("GET", "/api/jobs?text=%00&tag=%ff", ""), ("GET", "/api/usage?since=%d9%a3-01-01", ""),
        ("POST", "/prompt", r'{"prompt": {"5": {"class_type": "EmptyLatentImage", "inputs": {}, "_meta": {"title": "\ud800"}}}}'),
        ("POST", "/prompt", r'{"prompt_id": "\ud800", "prompt": {}, "extra_data": {"\ud800": "\ud800"}}'),
        ("POST", "/api/open", r'{"workflow": {"\ud800": {"class_type": "\ud800", "inputs": {"\ud800": "\ud800"}}}}'),
        ("POST", "/api/open", r'{"workflow": {"nodes": [{"id": "\ud800", "type": "\ud800", "title": "\ud800"}]}}'),
        ("POST", "/api/open", r'{"job": "\ud800"}'), ("POST", "/api/export", r'{"prompt": "\ud800", "as": "python"}'),
        ("POST", "/api/estimate", r'{"prompt": "\ud800"}'), ("GET", "/api/jobs/%ed%a0%80/export", ""),
        ("POST", "/queue", r'{"delete": ["\ud800"]}'), ("POST", "/history", r'{"delete": ["\ud800"]}'), ("GET", "/history/%ed%a0%80", ""),
        ("POST", "/interrupt", r'{"prompt_id": "\ud800"}'), ("GET", "/view?filename=%ed%a0%80.png", ""), ("GET", "/models/%ed%a0%80", ""),
        ("POST", "/api_prompt?task_id=%ed%a0%80", "{}"), ("GET", "/api/predict/%ed%a0%80?_attrs_=true", ""),
    ],
)  # fmt: skip
def test_text_that_is_none_breaks_nothing(house: House, job_ids: list[str], method: str, path: str, body: str) -> None:
    """Half of a surrogate pair, zeros, digits of other scripts, numbers of thousands of digits: what a generator does not make."""
    answer = house.ask(method, path.format(id=job_ids[0]), content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
