"""`app.py jobs`, `usage` and `user`, as they are typed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import app
from api.users import read
from jobs import database
from jobs.job import Outcome, Submission
from jobs.store import JobStore
from tests.api.test_jobs import GRAPH


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The output of a command; with `fails` what it says on standard error, and the code is 2."""

    def run(*arguments: object, fails: bool = False) -> str:
        words = [str(word) for word in arguments]
        code = app.main([*words, "--data-dir", str(tmp_path / "data")])
        out, err = capsys.readouterr()
        assert code == (2 if fails else 0), err
        return err if fails else out

    return run


def jobs(run: Callable[..., str], *arguments: object) -> list[dict]:
    return json.loads(run("jobs", *arguments, "--json"))


def test_a_prompt_with_several_seeds_is_one_batch(run) -> None:
    made = jobs(run, "submit", "--prompt", "a boat", "--seeds", 3, "--set", "frames=5", "--tag", "sea", "--owner", "bo", "--title", "Boats")
    assert len(made) == 3
    assert len({job["batch"] for job in made}) == 1
    assert {(job["title"], job["owner"], tuple(job["tags"])) for job in made} == {("Boats", "bo", ("sea",))}
    assert "a boat" not in run("jobs", "list")
    assert run("jobs", "list", "--owner", "bo").count("Boats") == 3


def test_a_seed_that_is_given_is_the_first_of_several(run, tmp_path) -> None:
    run("jobs", "submit", "--prompt", "a boat", "--set", "seed=7", "--seeds", 3)
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    seeds = [job.workflow["3"]["inputs"]["seed"] for job in store.list_jobs().jobs]
    store.close()
    assert seeds[-1] == 7
    assert len(set(seeds)) == 3


def test_a_table_of_prompts_is_a_job_a_row(run, tmp_path) -> None:
    table = tmp_path / "films.csv"
    table.write_bytes('\ufeffprompt,seed,frames\n"a boat, red",7,5\n一艘船,,\n'.encode())
    made = jobs(run, "submit", "--prompts", table)
    assert [job["title"] for job in made] == ["a boat, red", "一艘船"]
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    first = store.get(made[0]["id"]).workflow
    store.close()
    assert (first["3"]["inputs"]["seed"], first["16"]["inputs"]["video_frames"]) == (7, 5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed\n7\n", "no column `prompt`"),
        ("", "no column `prompt`"),
        ("prompt,colour\na,red\n", "line 1: Unknown column 'colour'"),
        ("prompt,steps\na,1\nb,0\n", "line 3: steps: Value 0 smaller than min"),
        ("prompt,steps\na,1,2\n", "line 2: there are more or fewer columns"),
        ('prompt\n"a\n', "CSV"),
    ],
)
def test_a_table_that_is_wrong_names_the_line_and_nothing_is_submitted(run, tmp_path, text, says) -> None:
    table = tmp_path / "films.csv"
    table.write_text(text)
    assert says in run("jobs", "submit", "--prompts", table, fails=True)
    assert jobs(run, "list") == []


def test_a_workflow_file_bare_or_wrapped(run, tmp_path) -> None:
    for document in (GRAPH, {"prompt": GRAPH}):
        (tmp_path / "a.json").write_text(json.dumps(document))
        assert len(jobs(run, "submit", tmp_path / "a.json", "--seeds", 2)) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit"], "Nothing is given"),
        (["submit", "a.json", "--prompt", "x"], "File and prompt"),
        (["submit", "nowhere.json"], "cannot be read"),
        (["submit", "--prompt", "x", "--set", "frames"], "not FIELD=VALUE"),
        (["submit", "--prompt", "x", "--set", "frames=0"], "smaller than min"),
        (["submit", "--prompt", "x", "--template", "opera"], "Unknown template 'opera'"),
        (["submit", "--prompt", "x", "--seeds", "0"], "--seeds is 0"),
        (["submit", "--prompt", "x", "--webhook", "ftp://a"], "no http or https address"),
        (["show", "nobody"], "There is no job 'nobody'"),
        (["cancel", "nobody"], "There is no job 'nobody'"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_what_cannot_be_done(run, arguments, says) -> None:
    assert says in run("jobs", *arguments, fails=True)


def test_jobs_are_moved_canceled_tried_again_duplicated_and_deleted(run) -> None:
    first, second, third = (job["id"] for job in jobs(run, "submit", "--prompt", "a boat", "--seeds", 3))
    run("jobs", "move", third, "--to", "front")
    run("jobs", "move", first, "--before", second)
    run("jobs", "move", first, "--to", "2")
    assert json.loads(run("jobs", "show", third))["status"] == "queued"
    assert {job["status"] for job in jobs(run, "cancel", first, second)} == {"canceled"}
    assert "has ended" in run("jobs", "cancel", first, fails=True)
    assert jobs(run, "retry", first)[0]["status"] == "queued"
    assert len({job["id"] for job in [*jobs(run, "duplicate", third), *jobs(run, "duplicate", third, "--new-seeds")]}) == 2
    assert jobs(run, "favourite", second)[0]["is_favourite"]
    assert not jobs(run, "favourite", second, "--off")[0]["is_favourite"]
    assert jobs(run, "delete", second)[0]["deleted"]
    assert [job["id"] for job in jobs(run, "list", "--deleted")] == [second]
    assert jobs(run, "undo", second)[0]["deleted"] is None
    assert len(jobs(run, "list", "--status", "queued", "--status", "canceled", "--limit", 3)) == 3


def test_the_queue_is_paused_and_resumed(run, tmp_path) -> None:
    assert run("jobs", "pause") == "The queue is paused.\n"
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    assert store.is_paused
    store.close()
    assert run("jobs", "resume") == "The queue is not paused.\n"


def test_usage_as_a_table_and_as_json(run, tmp_path) -> None:
    run("jobs", "list")
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    job = store.submit(Submission({"1": {}}, owner="bo"))
    store.claim("test")
    store.finish(job.id, Outcome())
    store.close()
    assert run("usage").splitlines()[-1].startswith("total")
    assert [one["owner"] for one in json.loads(run("usage", "--json", "--since", "2020-01-01"))] == ["bo"]
    assert json.loads(run("usage", "--json", "--owner", "cy")) == []
    assert "is no day" in run("usage", "--since", "May", fails=True)


def test_a_user_is_added_and_gets_a_token(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a long password\n"))
    assert "ada may enter" in run("user", "add", "ada", "--admin")
    token = run("user", "token", "ada").splitlines()[0]
    (entry,) = read(tmp_path / "data" / "users.json")
    assert (entry.name, entry.role, len(entry.tokens)) == ("ada", "admin", 1)
    assert token not in (tmp_path / "data" / "users.json").read_text()
    assert "Unknown user 'bo'" in run("user", "token", "bo", fails=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert "5 characters" in run("user", "add", "bo", fails=True)
