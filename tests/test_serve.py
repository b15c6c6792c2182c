"""The server as people start and stop it: a real process, a real port, no model."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
import starting
from jobs.store import JobStore

ROOT = Path(__file__).parent.parent
SECONDS_TO_ANSWER = 6.0


@contextlib.contextmanager
def process(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "app.py"), *map(str, arguments)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STILLMOTION_")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    # Whoever runs the tests may ignore a signal, as nohup does; we would inherit that.
    heard = lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)]  # noqa: E731
    with subprocess.Popen(command, env=clean | {"OMP_NUM_THREADS": "1"} | environment, preexec_fn=heard, **options) as started:
        try:
            yield started
        finally:
            started.kill()


def address(started: subprocess.Popen[str]) -> str:
    line = started.stdout.readline()
    assert line.startswith("Stillmotion is at http://"), line + started.stderr.read()
    return line.split()[-1]


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": "application/json"}), timeout=10) as answer:
        return answer.status, answer.read().decode()


def test_it_answers_soon_makes_its_folders_and_ends_well(tmp_path: Path) -> None:
    best = 99.9
    for number in range(2):  # a busy machine may be slow once
        data = tmp_path / str(number)
        began = time.monotonic()
        with process("--port", 0, "--data-dir", data) as started:
            url = address(started)
            assert get(url + "healthz")[0] == 200
            best = min(best, time.monotonic() - began)
            assert get(url + "readyz") == (200, '{"status":"ready"}')
            assert (data / "models" / "checkpoints").is_dir()
            maps = Path(f"/proc/{started.pid}/maps")
            assert not maps.exists() or "libtorch" not in maps.read_text()
            started.send_signal(signal.SIGTERM)
            _, log = started.communicate(timeout=20)
        assert started.returncode == 0, log
        assert "Traceback" not in log
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert [line["path"] for line in lines] == ["/healthz", "/readyz"]
        if best < SECONDS_TO_ANSWER:
            break
    print(f"answers after {best:.1f} s")  # noqa: T201
    assert best < SECONDS_TO_ANSWER


def test_beyond_this_machine_a_token_is_made_and_printed_and_a_closed_terminal_ends_it(tmp_path: Path) -> None:
    with process("serve", "--listen", "--port", 0, "--data-dir", tmp_path) as started:
        url = address(started)
        base, token = url.split("?token=")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(base + "api/jobs")
        assert json.loads(get(f"{base}api/jobs?token={token}")[1])["jobs"] == []
        started.send_signal(signal.SIGHUP)
        _, log = started.communicate(timeout=20)
    assert (started.returncode, "Traceback" in log) == (0, False)
    assert token not in log
    assert (tmp_path / "session.key").stat().st_mode & 0o077 == 0


def test_two_do_not_work_in_one_place_and_a_worker_ends_as_politely_as_a_server(tmp_path: Path) -> None:
    with process("work", STILLMOTION_DATA_DIR=str(tmp_path)) as started:
        lock, until = tmp_path / "jobs.sqlite.lock", time.monotonic() + 15
        while not (lock.exists() and lock.read_text()):
            assert time.monotonic() < until
            time.sleep(0.02)
        with process("--port", 0, "--data-dir", tmp_path) as second:
            _, said = second.communicate(timeout=20)
        assert second.returncode == 2
        assert said.splitlines()[-1].startswith(f"error: Another Stillmotion (process {started.pid}) works in ")
        assert "Traceback" not in said
        started.send_signal(signal.SIGTERM)
        _, log = started.communicate(timeout=20)
    assert (started.returncode, "Traceback" in log) == (0, False)


def test_a_worker_ends_when_nothing_waits(tmp_path: Path) -> None:
    with process("work", "--until-empty", "--data-dir", tmp_path) as started:
        _, log = started.communicate(timeout=20)
    assert (started.returncode, "Traceback" in log) == (0, False)


@pytest.mark.parametrize(("drain", "signals", "code"), [(0.2, 1, 0), (600, 2, 130)])
def test_ctrl_c_is_heard_while_pytorch_loads_and_a_second_one_ends_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], drain: float, signals: int, code: int
) -> None:
    slow = tmp_path / "slow" / "torch"
    slow.mkdir(parents=True)
    (slow / "__init__.py").write_text(f"open({str(tmp_path / 'loads')!r}, 'w').close()\nimport time\ntime.sleep(600)\n")
    data = tmp_path / "data"
    assert app.main(["jobs", "submit", "--prompt", "a boat", "--title", "Boat", "--data-dir", str(data)]) == 0
    capsys.readouterr()
    with process("work", "--data-dir", data, "--drain", drain, PYTHONPATH=str(slow.parent)) as started:
        until = time.monotonic() + 20
        while not (tmp_path / "loads").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        for _ in range(signals):
            started.send_signal(signal.SIGINT)
            time.sleep(0.3)
        _, log = started.communicate(timeout=20)
    assert (started.returncode, "Traceback" in log) == (code, False), log
    assert "begins: 'Boat'" in log
    assert "once more ends at once" in log
    with contextlib.closing(JobStore(data / "jobs.sqlite")) as store:
        assert [(job.status, job.attempts) for job in store.list_jobs().jobs] == [("queued", 0)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nobody tells here which signals are heard")
@pytest.mark.parametrize("verb", ["serve", "work"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_asked_to_end_before_it_has_begun_ends_well(verb: str, number: signal.Signals, tmp_path: Path) -> None:
    with process(verb, *(["--port", 0] if verb == "serve" else []), "--data-dir", tmp_path) as started:
        until = time.monotonic() + 15
        while not hears(started.pid, number):
            assert time.monotonic() < until
            time.sleep(0.002)
        started.send_signal(number)
        out, log = started.communicate(timeout=20)
    assert (started.returncode, "Traceback" in log) == (0, False), log
    assert "Stillmotion is at" not in out


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether the process does something of its own when it gets this signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--token", "x", "--no-auth"], "contradict each other"),
        (["--users", "{tmp}/nobody.json"], "users file"),
        (["--listen", "192.0.2.1"], "Cannot listen at 192.0.2.1"),
        (["--listen", "no.such.name.invalid"], "no address of this machine"),
        (["--root-path", "films"], "'films' is no path"),
        (["--allowed-origins", "films"], "'films' is no origin"),
        (["--database", "{tmp}/text"], "no database"),
        (["--data-dir", "{tmp}/text"], "Cannot write in"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "log_for_servers", lambda: None)
    (tmp_path / "text").write_text("This is no database, and no folder either. " * 100)
    given = [one.format(tmp=tmp_path) for one in arguments]
    assert app.main(["--port", "0", "--data-dir", str(tmp_path / "data"), *given]) == 2
    out, said = capsys.readouterr()
    assert (out, said.count("\n"), said.startswith("error: ")) == ("", 1, True)
    assert says in said
