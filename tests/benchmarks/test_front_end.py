from __future__ import annotations

import json
import sys

import pytest

from benchmarks import front_end


@pytest.mark.long
def test_the_last_line_is_a_document_with_the_rates_of_a_real_server(tmp_path, monkeypatch, capsys):
    arguments = ["--folder", str(tmp_path), "--clients", "2", "--seconds", "0.3", "--listeners", "1,2"]
    monkeypatch.setattr(sys, "argv", ["front_end", *arguments])
    assert front_end.main() == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    asked = {"GET /history/{id}", "GET /api/jobs/{id}", "POST /prompt", "events, 1 listeners", "events, 2 listeners"}
    assert set(document["rates"]) == asked
    assert min(document["rates"].values()) > 0
    assert min(document["people"].values()) > 0
    assert list(tmp_path.iterdir()) == []
