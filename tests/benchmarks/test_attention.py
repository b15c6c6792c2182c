from __future__ import annotations

import json

from benchmarks import attention


def test_every_kernel_is_measured_or_says_why_not(capsys):
    assert attention.main(["--device", "cpu", "--dtypes", "float32,bfloat16", "--tiny"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert {row["dtype"] for row in rows} == {"float32", "bfloat16"}
    for row in rows:
        assert bool(row["seconds"]) != bool(row["problem"])
        assert bool(row["seconds"]) == (row["kernel"] in ("sdpa", "flash", "math"))
    assert [row["kernel"] in ("sdpa", "flash") for row in rows if row["is_chosen"]] == [True, True]
