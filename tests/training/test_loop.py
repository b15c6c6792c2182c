"""Runs end, resume, and learn the same from two processes as from one with both their batches."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.loop import Run, load_average

ROOT = Path(__file__).parents[2]
TWO_PROCESSES = """
import argparse, pathlib, sys, torch
from training.loop import Run
torch.manual_seed(0)
module = torch.nn.Linear(3, 1)
run = Run("two", module, argparse.Namespace(runs=pathlib.Path(sys.argv[1]), minutes=1e6, threads=1, device="cpu"), lr=0.1)
data = torch.arange(12.0).view(4, 3) / 12
for step in run:
    run.learn(module(data[run.rank :: 2]).square().mean())
    if step == 4:
        run.seconds = 1e12
torch.distributed.destroy_process_group()
"""


def options(runs: Path, minutes: float = 1e6) -> argparse.Namespace:
    return argparse.Namespace(runs=runs, minutes=minutes, threads=0, device="cpu")


def learn(runs: Path, steps: int) -> Run:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    run = Run("two", module, options(runs), lr=0.1)
    data = torch.arange(12.0).view(4, 3) / 12
    for _ in run:
        run.learn(module(data).square().mean())
        if run.step == steps - 1:
            break
    return run


@pytest.mark.long
def test_two_processes_learn_what_one_does_from_both_batches(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    done = subprocess.run([*command, script, tmp_path], cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    both = torch.load(tmp_path / "two.pt", weights_only=True)
    alone = learn(tmp_path / "alone", 5)
    assert both["step"] == 5
    torch.testing.assert_close(both["module"]["weight"], alone.module.weight.detach(), rtol=1e-4, atol=1e-6)


def test_a_run_resumes_where_it_was_and_keeps_its_average(tmp_path: Path) -> None:
    def train(steps: int) -> Run:
        torch.manual_seed(1)
        run = Run("line", torch.nn.Linear(1, 1), options(tmp_path), lr=0.1, ema=0.5)
        for _ in zip(range(steps), run, strict=False):
            run.learn((run.module(torch.ones(4, 1)) - 3).square().mean())
        run.save()
        return run

    assert train(4).step == 3  # the fourth was not over when the loop ended
    resumed = train(3)
    assert resumed.step == 5
    module = load_average(tmp_path / "line.pt", torch.nn.Linear(1, 1))
    assert torch.equal(module.weight, resumed.average[0])
    assert not module.training


def test_a_used_up_budget_makes_no_step(tmp_path: Path) -> None:
    assert list(Run("none", torch.nn.Linear(3, 1), options(tmp_path, minutes=0), lr=0.1)) == []
