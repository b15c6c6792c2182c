"""Every way to start that the documentation names, started as it says there, and used by a client. No job runs: the queue is paused."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest

import app
from jobs.backup import read_backup
from tests.api.test_jobs import GRAPH
from tests.test_serve import ROOT, address, get, process

HOSTING = (ROOT / "docs" / "hosting.md").read_text()
OF_THE_PAGE = "/pandas/"  # a library of compiled parts that only Gradio wants


def documented(command: str) -> list[str]:
    """The arguments of `app.py` in a line of docs/hosting.md that begins so."""
    (line,) = re.findall(rf"^(?:\.venv/bin/)?python app\.py {re.escape(command)}.*$", HOSTING, re.MULTILINE)
    return shlex.split(line, comments=True)[2:]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = app.main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A data directory whose queue is paused."""
    run(capsys, "jobs", "pause", "--data-dir", tmp_path / "data")
    return tmp_path / "data"


def post(url: str, body: object, token: str = "") -> tuple[int, str]:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read().decode()


def test_single_user_and_a_backup_while_it_runs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    typed = shlex.split(made.rstrip().splitlines()[-1])
    assert typed == [".venv/bin/python", "app.py", "serve"]
    with process(*typed[2:], "--port", 0, "--data-dir", data) as started:
        url = address(started)
        assert url.startswith("http://127.0.0.1:")
        assert "gradio" in get(url)[1]
        assert post(f"{url}api/films", {"prompt": "a red boat", "frames": 5})[0] == 202
        backup = documented("backup /backups/monday")
        assert backup == ["backup", "/backups/monday"]
        assert "holds the jobs" in run(capsys, "backup", tmp_path / "monday", "--data-dir", data)
        assert post(f"{url}api/films", {"prompt": "a blue car", "frames": 5})[0] == 202
        run(capsys, "backup", tmp_path / "tuesday", "--like", tmp_path / "monday", "--data-dir", data)
        started.send_signal(signal.SIGTERM)
        assert started.wait(60) == 0
    kept = read_backup(tmp_path / "tuesday").files
    assert "webhook.key" in kept
    assert kept.keys() == read_backup(tmp_path / "monday").files.keys()
    for day, titles in (("monday", ["a red boat"]), ("tuesday", ["a blue car", "a red boat"])):
        assert f"{len(titles)} jobs" in run(capsys, "restore", tmp_path / day, "--data-dir", tmp_path / f"after {day}")
        listed = json.loads(run(capsys, "jobs", "list", "--json", "--data-dir", tmp_path / f"after {day}"))
        assert [job["title"] for job in listed] == titles
    with process("--no-ui", "--port", 0, "--data-dir", tmp_path / "after tuesday") as again:
        assert json.loads(get(f"{address(again)}api/jobs")[1])["jobs"][0]["title"] == "a blue car"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the SDK does not close its pool
def test_an_api_service_has_no_page_and_loads_none(data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from eas_prediction import QueueClient
    typed = documented("serve --no-ui")
    assert "--token" not in typed
    with process(*typed, "--listen", "127.0.0.1", "--port", 0, "--data-dir", data, STILLMOTION_TOKEN="secret") as started:
        url = address(started)
        client = QueueClient(url.rstrip("/"), "films")
        client.set_token("secret")
        client.init()
        index, request_id = client.put(json.dumps(GRAPH), {"task_id": "boat"})
        assert (int(index), bool(request_id)) == (1, True)
        assert "Stillmotion" in get(f"{url}docs?token=secret")[1]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}config?token=secret")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"{url}object_info")
        (job,) = json.loads(get(f"{url}api/jobs?token=secret")[1])["jobs"]
        assert job["status"] == "queued"
        maps = Path(f"/proc/{started.pid}/maps")
        assert not maps.exists() or OF_THE_PAGE not in maps.read_text()


def test_a_shared_service_and_several_of_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = {}
    for name in ("ada", "bo"):
        monkeypatch.setattr("sys.stdin", io.StringIO("a long password\n"))
        run(capsys, "user", "add", name, "--data-dir", data)
        tokens[name] = run(capsys, "user", "token", name, "--data-dir", data).splitlines()[0]
    typed = documented("serve --listen --users data/users.json")
    given = [str(data / "users.json") if one == "data/users.json" else one for one in typed]
    other = tmp_path / "other"
    other.mkdir()
    (other / "models").symlink_to(data / "models")
    with (
        process(*given, "--no-ui", "--port", 0, "--data-dir", data) as started,
        process("serve", "--no-ui", "--port", 0, "--data-dir", other, "--users", data / "users.json") as second,
    ):
        url, others = address(started), address(second)
        assert post(f"{url}api/jobs", {"workflow": GRAPH, "title": "of ada"}, tokens["ada"])[0] == 202
        assert [job["title"] for job in json.loads(get(f"{url}api/jobs?token={tokens['ada']}")[1])["jobs"]] == ["of ada"]
        assert json.loads(get(f"{url}api/jobs?token={tokens['bo']}")[1])["jobs"] == []
        assert json.loads(get(f"{others}api/jobs?token={tokens['ada']}")[1])["jobs"] == []
        with process("serve", "--no-ui", "--port", 0, "--data-dir", data) as refused:
            assert "works in" in refused.communicate(timeout=60)[1]
        assert refused.returncode == 2


def test_on_demand_somebody_works_when_there_is_work_and_is_told_what_it_cost(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert documented("work --until-empty") == ["work", "--until-empty"]
    with process("work", "--until-empty", "--data-dir", data) as worker:
        assert worker.wait(60) == 0
    assert documented("usage --csv")[:2] == ["usage", "--csv"]
    assert run(capsys, "usage", "--csv", "--data-dir", data) == "owner,day,runs,seconds\n"
