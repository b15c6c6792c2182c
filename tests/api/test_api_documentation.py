"""What docs/api.md shows is run, line by line, and what it tells is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from api.error_answers import STATUS
from jobs import database
from jobs.deliveries import PAUSES
from tests.api.house import living

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL) for kind in ("sh", "python")}


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_every_curl_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")
    with living(tmp_path / "data") as house:
        examples = "\n".join(BLOCKS["sh"]).replace("http://127.0.0.1:8000", house.url)
        script = (
            f'set -euo pipefail\ncurl() {{ command curl --fail-with-body "$@" || {{ echo "failed: $*" >&2; exit 1; }}; echo; }}\n{examples}'
        )
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=False
        )
        jobs = house.get("/api/jobs").json()["jobs"]
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert (tmp_path / "film.png").read_bytes().startswith(b"\x89PNG")
    assert "event: succeeded" in done.stdout
    assert len(jobs) == 4
    assert zipfile.is_zipfile(tmp_path / "films.zip")
    assert '"is_identical":true' in done.stdout
    assert any(job["title"] == "The best one" and job["is_favourite"] for job in jobs)


def test_the_signature_is_checked_as_it_is_shown() -> None:
    from jobs.webhooks import signature

    names: dict = {}
    exec(BLOCKS["python"][0], names)
    key, body = bytes(range(32)), b'{"event": "job.succeeded"}'
    assert names["is_genuine"](body, f"sha256={signature(key, body)}", key.hex())
    assert not names["is_genuine"](body + b" ", f"sha256={signature(key, body)}", key.hex())


def test_statuses_and_pauses_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (.*?) \|", TEXT, re.MULTILINE)
    told = {code: status.split(", ") for status, codes in rows for code in re.findall("`(.*?)`", codes)}
    for code in ("bad_input", "bad_workflow", "unknown_job", "wrong_state", "queue_full", "storage"):
        assert str(STATUS.get(code, 400)) in told[code]
    assert PAUSES == (10, 30, 2 * 60, 10 * 60, 3600, 6 * 3600, 24 * 3600)
