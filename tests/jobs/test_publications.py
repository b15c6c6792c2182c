from __future__ import annotations

import os
from pathlib import Path

from jobs.publications import Journal


def test_what_was_written_is_found_by_a_second_run(store, submit, tmp_path):
    journal, path = store.journal(submit().id), tmp_path / "a.png"
    assert journal.found("9", "k") is None
    journal.told("9", "k", tmp_path / ".1.part", path)
    path.write_bytes(b"a")
    journal.written("9", "k", {"images": [{"filename": "a.png"}]}, [path])
    assert journal.found("9", "k") == ({"images": [{"filename": "a.png"}]}, [path])
    assert path.exists()


def test_a_file_that_somebody_removed_is_written_again(store, submit, tmp_path):
    journal, path = store.journal(submit().id), tmp_path / "a.png"
    journal.written("9", "k", {}, [path])
    path.write_bytes(b"a")
    journal.written("9", "k", {}, [path])
    path.unlink()
    assert journal.found("9", "k") is None
    path.write_bytes(b"b")
    assert journal.found("9", "k") is None  # nothing is left of what was said before
    assert path.exists()


def test_what_was_made_of_something_else_is_taken_back_when_it_is_made_again(store, submit, tmp_path):
    journal, path = store.journal(submit().id), tmp_path / "a.png"
    path.write_bytes(b"a")
    journal.written("9", "k", {}, [path])
    assert journal.found("9", "another key") is None
    assert not path.exists()


def crashed(journal: Journal, folder: Path, state: str) -> tuple[Path, Path]:
    """A part and its target as a crash leaves them."""
    part, target = folder / ".1.part", folder / "a.png"
    part.write_bytes(b"ours")
    journal.told("9", "k", part, target)
    if state == "linked":
        os.link(part, target)
    elif state == "part removed":
        part.rename(target)
    elif state == "taken back":  # by the one who wrote it, when it failed; then the name was another's
        part.unlink()
        target.write_bytes(b"theirs")
    elif state == "taken by another":
        target.write_bytes(b"theirs")
    elif state == "empty":
        target.touch()
    return part, target


def test_what_a_crash_left_half_done_is_taken_back_and_nothing_of_others(store, submit, tmp_path):
    for state in ("before the link", "linked", "part removed", "taken by another", "taken back", "empty"):
        folder, journal = tmp_path / state, store.journal(submit().id)
        folder.mkdir()
        part, target = crashed(journal, folder, state)
        assert journal.found("9", "k") is None
        assert not part.exists()
        assert target.exists() == state.startswith("taken")
        assert store.publications(journal.job_id, "9") == []


def test_a_name_that_was_taken_is_no_longer_ours_once_the_next_was_tried(store, submit, tmp_path):
    journal, part = store.journal(submit().id), tmp_path / ".1.part"
    theirs, ours = tmp_path / "1.png", tmp_path / "2.png"
    theirs.write_bytes(b"theirs")
    part.write_bytes(b"ours")
    journal.told("9", "k", part, theirs)
    journal.told("9", "k", part, ours)
    part.rename(ours)
    assert journal.found("9", "k") is None
    assert theirs.exists()
    assert not ours.exists()


def test_what_a_job_that_crashed_twice_has_written_is_listed_and_the_rest_taken_back(store, submit, tmp_path):
    job, journal = submit(), None
    for _ in range(2):
        store.claim("test")
        journal = store.journal(job.id)
        store._began.clear()  # as a new process
        half = tmp_path / "half.mp4"
        if job.attempts == 0:
            (tmp_path / "a.png").write_bytes(b"a")
            shown = {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}
            journal.written("9", "k", shown, [tmp_path / "a.png"])
            (tmp_path / ".part").write_bytes(b"half")
            journal.told("19", "k", tmp_path / ".part", half)
            (tmp_path / ".part").rename(half)
        (job,) = store.recover()
    assert (job.status, job.error.code) == ("failed", "crashed")
    assert job.outputs == {"9": shown}
    assert [file.filename for file in job.files] == ["a.png"]
    assert not half.exists()


def test_jobs_and_nodes_keep_their_own(store, submit, tmp_path):
    a, b = (store.journal(submit().id) for _ in range(2))
    path = tmp_path / "a.png"
    path.touch()
    a.written("9", "k", {}, [path])
    assert b.found("9", "k") is None
    assert a.found("19", "k") is None
    assert a.found("9", "k") == ({}, [path])
    store.journal("gone").told("9", "k", path, path)


def test_they_outlive_a_second_start(store, submit, tmp_path):
    job, path = submit(), tmp_path / "a.png"
    path.touch()
    store.claim("test")
    store.journal(job.id).written("9", "k", {}, [path])
    store.requeue(job.id)
    store.claim("test")
    assert store.journal(job.id).found("9", "k") == ({}, [path])
