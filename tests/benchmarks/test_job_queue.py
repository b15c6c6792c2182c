from __future__ import annotations

import json
import sys

import pytest

from benchmarks import job_queue


@pytest.mark.long
def test_the_last_line_is_a_document_with_a_row_for_each_measure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["job_queue", "--folder", str(tmp_path), "--jobs", "10"])
    monkeypatch.setattr(job_queue, "GOAL_P99_SECONDS", 60)
    assert job_queue.main() == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["what"] for row in document["rows"]} >= {"submit", "claim", "finish", "submit beside a running job"}
    assert all(row["per_second"] > 0 for row in document["rows"])
    assert list(tmp_path.iterdir()) == []
