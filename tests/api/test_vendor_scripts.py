"""The scripts that users of the PAI-EAS service have, run as they are, with only address and token filled in: a served process, real models
(tiny ones), and files in `output` at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_serve import address, process
from tests.test_serve_films import small

SCRIPTS = Path(__file__).parents[1] / "data" / "vendor"
TOKEN = "a-token-of-the-service"


class Client:
    """A user's folder, with the scripts and a workflow."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        (folder / "workflow.json").write_text(json.dumps(small()))
        self.folder, self.filled = folder, {"<service_url>": url, "<domain>": url.removeprefix("http://"), "<token>": TOKEN}

    def run(self, name: str) -> list[str]:
        """The lines that the script prints; it may not fail."""
        text = (SCRIPTS / f"{name}.py").read_text()
        for place, value in self.filled.items():
            text = text.replace(place, value)
        (self.folder / f"{name}.py").write_text(text)
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        command = [sys.executable, f"{name}.py"]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout.splitlines()


@pytest.mark.demo
@pytest.mark.long
def test_the_scripts_run_as_they_are_and_end_with_films(data_dir: Path, tmp_path: Path) -> None:
    with process("serve", "--port", 0, "--data-dir", data_dir, "--device", "cpu", "--drain", 0, "--token", TOKEN) as server:
        client = Client(tmp_path / "client", address(server).rstrip("/"))
        output = data_dir / "output"

        _, status, *saved = client.run("synchronous")
        assert status == "status: success"
        names = [line.removeprefix("saved: ") for line in saved]
        assert sorted(Path(name).suffix for name in names) == [".mp4", ".png", ".webp"]
        assert all((client.folder / name).read_bytes() == (output / name).read_bytes() for name in names)

        assert client.run("producer") == ["index: 1", "index: 2"]
        *results, left = client.run("subscriber")
        told = [json.loads(line) for line in results]
        assert [one["task_id"] for one in told] == ["film-0", "film-1"]
        assert all(one["events"] == ["executed"] * 3 for one in told)
        assert all((output / name).is_file() for one in told for name in one["files"])
        assert left == "left: 0"
        assert len(list(output.glob("*.mp4"))) == 3
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    assert (server.returncode, "Traceback" in log) == (0, False), log
