from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MOTION_NAME, STILL_NAME

ROOT = Path(__file__).parents[2]


@pytest.mark.demo
@pytest.mark.long
def test_nothing_is_lost_and_nothing_done_twice_however_often_the_worker_is_killed(tiny_models: Path) -> None:
    names = ["--models", str(tiny_models), "--still", STILL_NAME, "--motion", MOTION_NAME]
    command = [sys.executable, "-m", "benchmarks.kill", "--kills", "50", "--jobs", "25", *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["wrong"] == []
    assert result["kills"] == 50
    assert result["accepted"] >= 25
    assert sum(result["counts"].values()) == result["accepted"]
    assert result["counts"]["succeeded"] >= 3
    assert done.returncode == 0, done.stderr[-2000:]
