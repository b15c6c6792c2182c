from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.job import Job, JobStatus, Outcome, Output
from jobs.keeping import keep_within, record_of, reindex
from jobs.runner import record
from jobs.store import JobStore
from pipelines.encode import save_png
from workflows.folders import Folders

WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}}}


@pytest.fixture
def made(store: JobStore, submit, run_one, clock, tmp_path: Path):
    """A job of this owner with a picture on the disk, recorded as the runner does."""

    def made(owner: str, name: str, **values: object) -> Job:
        job = submit(owner, workflow=WORKFLOW, title=name, **values)
        path = save_png(np.zeros((4, 4, 3), np.float32), folder(owner) / name, {"prompt": WORKFLOW})
        output = Output("9", "images", name, bytes=path.stat().st_size)
        outcome = Outcome({"9": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}, files=(output,), device="cpu")
        record(tmp_path, job, outcome)
        job = run_one(outcome=outcome)
        clock.advance(24 * 3600)
        return job

    def folder(owner: str) -> Path:
        path = Folders(tmp_path, owner).of("output")
        path.mkdir(parents=True, exist_ok=True)
        return path

    return made


def files(data_dir: Path) -> list[str]:
    return sorted(path.relative_to(data_dir / "output").as_posix() for path in (data_dir / "output").rglob("*.png"))


def test_what_is_too_old_goes_with_its_files_and_a_dry_run_only_says_so(made, store: JobStore, tmp_path: Path) -> None:
    old, starred, new = made("anna", "a.png"), made("anna", "b.png"), made("bert", "a.png")
    store.favourite(starred.id)
    would = keep_within(store, tmp_path, keep_days=1.5, is_dry=True)
    assert [job.id for job in would.jobs] == [old.id]
    assert files(tmp_path) == ["anna/a.png", "anna/b.png", "bert/a.png"]
    assert keep_within(store, tmp_path, keep_days=1.5).bytes == would.bytes > 0
    assert files(tmp_path) == ["anna/b.png", "bert/a.png"]
    assert {job.id for job in store.list_jobs().jobs} == {starred.id, new.id}
    assert not record_of(tmp_path, old.id).exists()


def test_the_library_is_made_again_from_the_data_directory(made, store: JobStore, tmp_path: Path) -> None:
    jobs = [made("anna", "a.png", tags=("sea",)), made("", "b.png"), made("", "c.png", job_id="../odd/id")]
    record_of(tmp_path, jobs[1].id).unlink()  # its picture says enough
    (tmp_path / "library" / "broken.json").write_text("{")
    Image.new("RGB", (4, 4)).save(tmp_path / "output" / "foreign.png")
    fresh = JobStore(tmp_path / "fresh.sqlite")
    assert reindex(fresh, tmp_path) == (2, 1)
    assert reindex(fresh, tmp_path) == (0, 0)
    again = fresh.get(jobs[0].id)
    assert (again.status, again.owner, again.title, again.tags) == (JobStatus.SUCCEEDED, "anna", "a.png", ("sea",))
    assert again.workflow == WORKFLOW
    assert again.outputs == jobs[0].outputs
    assert fresh.get("../odd/id").title == "c.png"
    loose = next(job for job in fresh.list_jobs().jobs if job.title == "b")
    assert (loose.workflow, loose.owner) == (WORKFLOW, "")
    assert fresh.owners_of("a.png") == {"anna"}
    assert fresh.counts()[JobStatus.SUCCEEDED] == 3
    assert json.loads(record_of(tmp_path, jobs[0].id).read_text())["files"] == [asdict(jobs[0].files[0])]
    fresh.close()
