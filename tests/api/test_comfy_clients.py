"""`comfy_api_simplified` from PyPI, unmodified, against a running server."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_api_simplified import ComfyApiError, ComfyApiWrapper, ComfyWorkflowWrapper

from api import users
from api.passwords import Cost
from errors import InputError
from jobs import database
from tests.api.comfy_house import STILL, House, house, picture
from tests.api.house import living, until
from tests.api.test_jobs import GRAPH

TWO_STAGE = Path(__file__).parents[1] / "data" / "comfyui" / "two_stage.json"


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[House]:
    """It works on whatever comes."""
    with house(tmp_path) as made:
        stop = threading.Event()
        thread = threading.Thread(target=made.worker.run_forever, args=(stop,))
        thread.start()
        yield made
        stop.set()
        thread.join()


@pytest.fixture
def client(server: House) -> ComfyApiWrapper:
    return ComfyApiWrapper(server.url)


def test_a_workflow_is_changed_queued_and_its_files_fetched(server: House, client: ComfyApiWrapper) -> None:
    workflow = ComfyWorkflowWrapper(TWO_STAGE)
    workflow.set_node_param("Empty Latent", "width", 64)
    ((name, film),) = client.queue_and_wait_images(workflow, "Merge to video").items()
    assert name.endswith(".mp4")
    assert film == (server.data_dir / "output" / name).read_bytes()
    ((name, still),) = client.queue_and_wait_images(workflow, "Save the image").items()
    assert still == (server.data_dir / "output" / name).read_bytes()


def test_a_job_that_fails_or_cannot_be_is_an_error_there(server: House, client: ComfyApiWrapper, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "comfy_api_simplified")
    server.stand_in.fails["3"] = InputError("The boat sank.", "Take another boat.")
    server.stand_in.before["3"] = lambda: until(lambda: "'type': 'status'" in caplog.text)  # by then the client listens
    with pytest.raises(ComfyApiError, match="Execution error"):
        client.queue_and_wait_images(ComfyWorkflowWrapper(STILL), STILL["9"]["_meta"]["title"])
    wrong = copy.deepcopy(STILL)
    wrong["3"]["inputs"]["steps"] = 0
    with pytest.raises(ComfyApiError, match="400"):
        client.queue_prompt(wrong)


def test_what_there_is(server: House, client: ComfyApiWrapper, tmp_path: Path) -> None:
    assert client.get_object_info("KSampler")["KSampler"]["input"]["required"]["steps"]
    assert client.get_object_info().keys() > {"KSampler", "SVD_img2vid_Conditioning"}
    assert client.get_system_stats()["system"]["comfyui_version"]
    assert client.get_embeddings() == []
    (tmp_path / "still.png").write_bytes(picture())
    told = client.upload_image(tmp_path / "still.png", subfolder="mine")
    assert told == {"name": "still.png", "subfolder": "mine", "type": "input"}
    assert client.get_image("still.png", "mine", "input") == picture()
    with pytest.raises(ComfyApiError, match="404"):
        client.get_image("other.png", "mine", "input")


def test_with_name_and_password_one_waits_in_line_and_interrupts(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    users.add(path, "ann", "correct horse", cost=Cost(n=16, r=1, p=1))
    titled = {i: node | {"_meta": {"title": "Still" if i == "9" else node["class_type"]}} for i, node in GRAPH.items()}
    with living(tmp_path / "data", users_path=path, key_path=tmp_path / "key") as home:
        client = ComfyApiWrapper(home.url, "ann", "correct horse")
        ((_, still),) = client.queue_and_wait_images(ComfyWorkflowWrapper(titled), "Still").items()
        assert still.startswith(b"\x89PNG")
        home.service.store.pause()
        first, second = (client.queue_prompt(titled)["prompt_id"] for _ in range(2))
        assert [client.get_queue_size_before(one) for one in (first, second)] == [1, 2]
        client.interrupt()  # nothing of hers runs
        assert len(client.get_queue()["queue_pending"]) == 2
        with pytest.raises(ComfyApiError, match="401"):
            ComfyApiWrapper(home.url, "ann", "wrong").get_queue()
