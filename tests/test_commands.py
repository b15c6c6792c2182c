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
        ("prompt,steps\na,1\nb,0\n", "line 3: steps: 0 is less than 1"),
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
        (["submit", "--prompt", "x", "--set", "frames=0"], "less than 1"),
        (["submit", "--prompt", "x", "--template", "opera"], "Unknown template 'opera'"),
        (["submit", "--prompt", " "], "prompt is empty. Say what the film shows."),
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
    assert run("jobs", "resume") == "The queue was not paused.\n"
    assert run("jobs", "pause") == "The queue is paused: what runs goes on, nothing else begins.\n"
    assert run("jobs", "pause") == "The queue was paused already.\n"
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    assert store.is_paused
    store.close()
    assert run("jobs", "resume") == "The queue goes on.\n"


def test_an_id_may_be_cut_short_and_all_are_checked_before_any_is_changed(run, tmp_path) -> None:
    first, second = (job["id"] for job in jobs(run, "submit", "--prompt", "a boat", "--seeds", 2))
    assert [job["id"] for job in jobs(run, "favourite", first[:8], second[:8], first)] == [first, second]
    for wrong in ("nope", first[:3], "%%%%"):
        assert f"There is no job {wrong!r}" in run("jobs", "favourite", first, wrong, "--off", fails=True)
    assert json.loads(run("jobs", "show", first[:8]))["is_favourite"]
    jobs(run, "move", second[:8], "--before", first[:8])
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    assert [job_id for job_id, _ in sorted(store.positions().items(), key=lambda one: one[1])] == [second, first]
    for name in ("boat", "boat-2", "boat-3"):
        store.submit(Submission({"1": {}}, job_id=name))
    store.close()
    assert jobs(run, "cancel", "boat")[0]["id"] == "boat"  # a whole one is never short for another
    assert "Several jobs begin with 'boat-'" in run("jobs", "cancel", "boat-", fails=True)


def test_places_count_from_one(run, tmp_path) -> None:
    first, second, third = (job["id"] for job in jobs(run, "submit", "--prompt", "a boat", "--seeds", 3))
    run("jobs", "move", third, "--to", 1)
    run("jobs", "move", first, "--to", 3)
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    assert store.positions() == {third: 0, second: 1, first: 2}
    store.close()
    assert "There is no place 0" in run("jobs", "move", first, "--to", 0, fails=True)


def test_who_only_looks_makes_no_folders(run, tmp_path, capsys) -> None:
    assert jobs(run, "list") == []
    assert app.main(["jobs", "list", "--data-dir", str(tmp_path / "data")]) == 0
    assert "there are no jobs in" in capsys.readouterr().err
    assert "There is no job 'nobody'" in run("jobs", "cancel", "nobody", fails=True)
    assert json.loads(run("usage", "--json")) == []
    run("keep", "--keep-days", 1, "--dry-run")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_no_json_is_named(run, tmp_path) -> None:
    (tmp_path / "film.json").write_text('{"3": True}')
    for words in (("jobs", "submit"), ("run",)):
        said = run(*words, tmp_path / "film.json", fails=True)
        assert f"{tmp_path / 'film.json'} is no valid JSON" in said
        assert "True is Python's" in said


def test_a_webhook_to_a_private_address_is_refused_as_by_the_server(run, monkeypatch) -> None:
    words = "jobs", "submit", "--prompt", "a boat", "--webhook", "http://127.0.0.1:9/done"
    assert "an address of this machine" in run(*words, fails=True)
    run(*words, "--webhook-private")
    monkeypatch.setenv("STILLMOTION_WEBHOOK_PRIVATE", "1")
    run(*words)


@pytest.mark.parametrize("prefix", ["../out", "/etc/film", "a\u0007b", "", "x" * 250])
def test_a_bad_start_of_file_names_is_refused_at_once(run, tmp_path, prefix) -> None:
    graph = {i: node | {"inputs": dict(node["inputs"])} for i, node in GRAPH.items()}
    for node in graph.values():
        if "filename_prefix" in node["inputs"]:
            node["inputs"]["filename_prefix"] = prefix
    (tmp_path / "a.json").write_text(json.dumps(graph))
    assert "prefix" in run("jobs", "submit", tmp_path / "a.json", fails=True)
    assert "prefix" in run("jobs", "submit", "--prompt", "x", "--set", f"prefix={prefix}", fails=True)
    assert jobs(run, "list") == []


def test_reindex_says_what_it_cannot_find_again(run) -> None:
    assert "jobs that have not succeeded, favourites, usage" in run("reindex")


def test_usage_as_a_table_and_as_json(run, tmp_path) -> None:
    run("jobs", "list")
    store = JobStore(tmp_path / "data" / "jobs.sqlite")
    job = store.submit(Submission({"1": {}}, owner="bo"))
    store.claim("test")
    store.finish(job.id, Outcome(stage_seconds={"still": 2.0, "loading": 7.0}))
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
