from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path

import pytest

from errors import InputError, StorageError, UnreadableFileError
from jobs.backup import back_up, read_backup, restore
from jobs.consumers import QueueName
from jobs.database import Database
from jobs.job import JobStatus, Outcome, Output, Submission
from jobs.migrations import APPLICATION_ID, MIGRATIONS
from jobs.queue_items import Entry, Wanted
from jobs.queues import Queues
from jobs.service_settings import StoreSettings
from jobs.store import JobStore

SINK = QueueName("films", "sink")


def settings_at(folder: Path) -> StoreSettings:
    return StoreSettings(folder, folder / "jobs.sqlite")


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    """A data directory as servers leave it: a film, a picture, keys, models, and what can be made again."""
    data = tmp_path / "data"
    for name in ("output/ada/a.mp4", "input/boat.png", "library/1.json", "models/vae/soft.safetensors", "cache/x", "temp/y", "session.key"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(name.encode() * 100)
    (data / "output" / ".half.part").write_bytes(b"half")
    (data / "session.key").chmod(0o600)
    return settings_at(data)


@pytest.fixture
def store(settings: StoreSettings) -> JobStore:
    with contextlib.closing(JobStore(settings.database)) as store:
        yield store


def done(store: JobStore, title: str) -> str:
    job = store.submit(Submission({"1": {}}, "ada", title))
    store.claim("test")
    store.finish(job.id, Outcome(files=(Output("1", "gifs", "a.mp4", "", "output", 1600),)))
    return job.id


def titles(folder: Path) -> dict[str, JobStatus]:
    with contextlib.closing(JobStore(folder / "jobs.sqlite")) as store:
        return {job.title: job.status for job in store.list_jobs().jobs}


def test_what_is_restored_is_what_was_there(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    done(store, "a film")
    store.submit(Submission({"1": {}}, title="waits"))
    with contextlib.closing(Queues(settings.queues_path)) as queues:
        queues.put(SINK, Entry(b"a result"))
    made = back_up(settings, tmp_path / "backup")
    assert sorted(made.files) == ["input/boat.png", "library/1.json", "output/ada/a.mp4", "session.key"]

    back = settings_at(tmp_path / "elsewhere")
    assert restore(back, tmp_path / "backup") == made
    assert titles(back.data_dir) == {"waits": JobStatus.QUEUED, "a film": JobStatus.SUCCEEDED}
    with contextlib.closing(Queues(back.queues_path)) as queues:
        assert [item.data for item in queues.read(SINK, Wanted())] == [b"a result"]
    for name in made.files:
        assert (back.data_dir / name).read_bytes() == (settings.data_dir / name).read_bytes()
    assert (back.data_dir / "session.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


def test_while_others_write_it_is_one_moment(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    """Jobs come in pairs, each pair in one transaction: no backup has half of one."""
    stop, pairs = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            pairs.append(store.submit_many([Submission({"1": {}}, title="left"), Submission({"1": {}}, title="right")]))

    with contextlib.closing(JobStore(settings.database)):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for number in range(3):
                back_up(settings, tmp_path / str(number))
        finally:
            stop.set()
            writer.join()
    counted = []
    for number in range(3):
        with contextlib.closing(JobStore(tmp_path / str(number) / "jobs.sqlite")) as found:
            counted.append([len(found.list_jobs(text=side, limit=10_000).jobs) for side in ("left", "right")])
    assert all(left == right for left, right in counted)
    assert counted == sorted(counted)
    assert counted[-1][0] <= len(pairs)


def test_what_has_not_changed_is_shared_with_an_earlier_one(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    back_up(settings, first)
    (settings.data_dir / "input" / "boat.png").write_bytes(b"another boat")
    back_up(settings, second, earlier=first)
    assert (first / "data" / "session.key").samefile(second / "data" / "session.key")
    assert not (first / "data" / "input" / "boat.png").samefile(second / "data" / "input" / "boat.png")
    assert (second / "data" / "input" / "boat.png").read_bytes() == b"another boat"
    with pytest.raises(UnreadableFileError, match="no backup"):
        back_up(settings, tmp_path / "third", earlier=tmp_path)


def test_models_are_kept_when_they_are_asked_for(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    assert "models/vae/soft.safetensors" in back_up(settings, tmp_path / "backup", has_models=True).files


def test_a_database_somewhere_else_goes_back_to_where_it_is_to_be(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    done(store, "a film")
    back_up(settings, tmp_path / "backup")
    other = StoreSettings(tmp_path / "other", tmp_path / "fast" / "table.sqlite")
    restore(other, tmp_path / "backup")
    assert back_up(other, tmp_path / "again").files.keys() == read_backup(tmp_path / "backup").files.keys()
    assert titles(tmp_path / "again") == {"a film": JobStatus.SUCCEEDED}


@pytest.mark.parametrize("database", ["jobs.sqlite", "db/jobs.sqlite", "up/../jobs.sqlite"])
def test_no_table_is_kept_as_a_file_however_its_path_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "output").mkdir(parents=True)
    (tmp_path / "data" / "output" / "a.mp4").touch()
    settings = StoreSettings(Path("data"), tmp_path / "data" / database)
    (tmp_path / "data" / "up").mkdir()
    settings.database.parent.mkdir(exist_ok=True)
    with contextlib.closing(JobStore(settings.database)) as store, contextlib.closing(Queues(settings.queues_path)) as queues:
        done(store, "a film")
        queues.put(SINK, Entry(b"a result"))
        assert back_up(settings, tmp_path / "backup").files.keys() == {"output/a.mp4"}


def test_what_another_table_left_is_not_read_into_the_one_that_is_restored(
    settings: StoreSettings, store: JobStore, tmp_path: Path
) -> None:
    """It may be in a backup of an earlier release, or in the directory."""
    (settings.data_dir / "old.sqlite-wal").write_bytes(b"of a backup that has it")
    done(store, "a film")
    back_up(settings, tmp_path / "backup")
    other = StoreSettings(tmp_path / "other", tmp_path / "other" / "old.sqlite")
    other.data_dir.mkdir()
    for more in ("-shm", "-journal"):
        (other.data_dir / f"old.sqlite{more}").write_bytes(b"stale")
    restore(other, tmp_path / "backup")
    assert not [path.name for path in other.data_dir.glob("old.sqlite-*")]
    with contextlib.closing(JobStore(other.database)) as found:
        assert [job.title for job in found.list_jobs().jobs] == ["a film"]


def test_what_ran_waits_again(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    store.submit(Submission({"1": {}}, title="runs"))
    store.claim("test")
    back_up(settings, tmp_path / "backup")
    restore(settings_at(tmp_path / "other"), tmp_path / "backup")
    with contextlib.closing(JobStore(tmp_path / "other" / "jobs.sqlite")) as found:
        assert [job.status for job in found.recover()] == [JobStatus.QUEUED]


def test_a_backup_of_an_older_stillmotion_is_kept_old_and_restored_new(settings: StoreSettings, tmp_path: Path) -> None:
    with contextlib.closing(Database(settings.database, MIGRATIONS[:1], APPLICATION_ID)):
        pass
    back_up(settings, tmp_path / "backup")
    with contextlib.closing(Database(tmp_path / "backup" / "jobs.sqlite", MIGRATIONS[:1], APPLICATION_ID)) as old:
        assert len(old.read("SELECT * FROM migrations")) == 1
    restore(settings_at(tmp_path / "other"), tmp_path / "backup")
    assert titles(tmp_path / "other") == {}


@pytest.mark.parametrize("where", ["data/backup", "data", "full"])
def test_where_no_backup_can_be(settings: StoreSettings, store: JobStore, tmp_path: Path, where: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError):
        back_up(settings, tmp_path / where)


def test_there_has_to_be_something_to_keep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="There is no table of jobs"):
        back_up(settings_at(tmp_path / "typo"), tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_nothing_is_overwritten(settings: StoreSettings, store: JobStore, tmp_path: Path) -> None:
    back_up(settings, tmp_path / "backup")
    with pytest.raises(StorageError, match="There is a table of jobs"):
        restore(settings, tmp_path / "backup")
    other = settings_at(tmp_path / "other")
    other.data_dir.mkdir()
    (other.data_dir / "session.key").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"session\.key is there already"):
        restore(other, tmp_path / "backup")
    assert [path.name for path in other.data_dir.iterdir()] == ["session.key"]


def test_a_restore_that_was_broken_off_is_done_again(
    settings: StoreSettings, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(store, "a film")
    back_up(settings, tmp_path / "backup")
    other = settings_at(tmp_path / "other")
    with monkeypatch.context() as patched:
        patched.setattr("jobs.backup.copy_database", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            restore(other, tmp_path / "backup")
    assert not other.database.exists()
    restore(other, tmp_path / "backup")
    assert titles(other.data_dir) == {"a film": JobStatus.SUCCEEDED}


def damage(backup: Path, how: str) -> None:
    record = json.loads((backup / "backup.json").read_text())
    match how:
        case "broken off":
            (backup / "backup.json").unlink()
        case "newer":
            (backup / "backup.json").write_text(json.dumps(record | {"format": 99}))
        case "a file less":
            (backup / "data" / "session.key").unlink()
        case "a file cut":
            (backup / "data" / "session.key").write_bytes(b"x")
        case "a way out":
            (backup / "backup.json").write_text(json.dumps(record | {"files": {"../../x": 1}}))
        case "a table cut":
            os.truncate(backup / "jobs.sqlite", 8192)


@pytest.mark.parametrize("how", ["broken off", "newer", "a file less", "a file cut", "a way out", "a table cut"])
def test_what_is_no_whole_backup_is_not_restored(settings: StoreSettings, store: JobStore, tmp_path: Path, how: str) -> None:
    back_up(settings, tmp_path / "backup")
    damage(tmp_path / "backup", how)
    with pytest.raises((UnreadableFileError, StorageError, InputError)):
        restore(settings_at(tmp_path / "other"), tmp_path / "backup")
    assert not (tmp_path / "other").exists()
