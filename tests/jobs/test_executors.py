"""What every executor does with a job: that of this process, that of a GPU that is lent, and that of several machines."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import StorageError
from jobs.job import JobStatus, Submission
from jobs.service_settings import ClusterSettings
from tests.jobs.far import PATIENCE, House, use_token

OWN_NODES = '''
from typing import Annotated

from errors import InputError, StillmotionError
from pipelines.parameters import Text
from pipelines.values import Saved
from workflows.declare import node


class Unripe(StillmotionError):
    code = "unripe"


@node("Refuse", title="Refuse", category="mine", is_output=True)
def refuse(bench, job, how: Annotated[str, Text("how", 20)] = "ours") -> Saved:
    """Never."""
    if how == "ours":
        raise InputError("Too green.", "Wait.")
    if how == "its own":
        raise Unripe("Not yet.", "Wait longer.")
    raise RuntimeError("broken to pieces")


NODES = (refuse,)
'''


RAY = [
    pytest.mark.ray,
    pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="wants Ray: make test-ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module", params=["local", "lent", pytest.param("ray", marks=RAY)])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[House]:
    data_dir = tmp_path_factory.mktemp("house") / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(tiny_models)
    (data_dir / "custom_nodes").mkdir()
    (data_dir / "custom_nodes" / "own.py").write_text(OWN_NODES)
    cluster = ClusterSettings(max_replicas=1, gpus=0) if request.param == "ray" else None
    if cluster:
        use_token()
    with House(data_dir, cluster, is_lent=request.param == "lent") as made:
        yield made


def test_a_job_is_done_and_told_of(house: House) -> None:
    (job,) = house.ended(house.submit("anna", prompt="a red boat"))
    assert (job.status, job.error, job.device, job.attempts) == (JobStatus.SUCCEEDED, None, "cpu", 1)
    assert job.outputs.keys() == {"9", "15", "19"}
    assert {f"anna/{file.filename}" for file in job.files} == house.files().keys()
    kinds = house.kinds(job.id)
    assert [kinds[0], kinds[1], kinds[-1]] == ["queued", "started", "succeeded"]
    assert {"cached", "node", "progress", "preview", "output"} <= set(kinds)
    stages = [event.data["stage"] for event in house.events if event.kind == "progress"]
    assert list(dict.fromkeys(stage for stage in stages if stage != "waking"))[:3] == ["loading", "still", "encoding"]
    assert house.service.device()["type"] == "cpu"
    assert house.service.cache_counts()[1] > 0
    assert (house.data_dir / "library" / f"{job.id}.json").exists()


def test_what_was_made_before_is_found_again(house: House) -> None:
    first, second = house.submit(prompt="a tree"), house.submit(prompt="a tree", crf=30)
    assert {"3", "13", "14"} <= set(house.ended(first, second)[1].cached)


def test_a_cancel_is_heard_within_a_second_and_the_next_job_runs(house: House) -> None:
    unwanted, wanted = house.submit(steps=1000, prefix="unwanted"), house.submit(prompt="wanted")
    house.reaches(unwanted, "still", 3)
    began = time.monotonic()
    house.store.cancel(unwanted)
    assert house.ended(unwanted)[0].status == JobStatus.CANCELED
    assert time.monotonic() - began < 1.0
    assert house.ended(wanted)[0].status == JobStatus.SUCCEEDED
    assert not [name for name in house.files() if name.startswith("unwanted")]


@pytest.mark.parametrize(("how", "code", "words"), [("ours", "bad_input", ("Too green.", "Wait.")),
                                                    ("its own", "unripe", ("Not yet.", "Wait longer."))])  # fmt: skip
def test_an_error_for_people_arrives_whole(house: House, how: str, code: str, words: tuple[str, str]) -> None:
    (job,) = house.ended(house.store.submit(Submission({"7": {"class_type": "Refuse", "inputs": {"how": how}}})).id)
    assert (job.status, job.error.code, job.error.node) == (JobStatus.FAILED, code, "7")
    assert (job.error.message, job.error.hint) == words


def test_a_mistake_of_ours_gets_a_number_and_its_traceback(house: House, caplog: pytest.LogCaptureFixture) -> None:
    (job,) = house.ended(house.store.submit(Submission({"7": {"class_type": "Refuse", "inputs": {"how": "badly"}}})).id)
    assert (job.status, job.error.code) == (JobStatus.FAILED, "internal")
    assert "broken to pieces" in job.log
    assert "in refuse" in job.log
    assert "broken to pieces" not in job.error.message
    assert job.error.details["id"] in caplog.text


def test_nothing_is_published_that_the_journal_does_not_take(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("The disk is full.", "Free some space.")

    monkeypatch.setattr(house.store, "intend", full)
    (job,) = house.ended(house.submit(prefix="never"))
    assert (job.status, job.error.code, job.error.node) == (JobStatus.FAILED, "storage", "9")
    assert not [name for name in house.files() if name.startswith("never")]


def test_what_is_told_to_stop_waits_again_as_if_it_had_not_begun(house: House) -> None:
    job_id = house.submit(steps=1000, prefix="last")
    house.reaches(job_id, "still", 3)
    house.service.drain(0)
    assert house.service.wait(PATIENCE)
    job = house.store.get(job_id)
    assert (job.status, job.attempts, house.service.failure) == (JobStatus.QUEUED, 0, "")
