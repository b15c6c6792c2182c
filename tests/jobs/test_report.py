from __future__ import annotations

from jobs.history import Usage
from jobs.report import job_table, usage_csv, usage_table


def test_jobs_are_listed(store, submit, run_one):
    submit("ann", title="rocket", job_id="one")
    run_one(2.5)
    assert job_table(store.list_jobs().jobs).splitlines() == [
        "job  status     owner  created (UTC)        seconds  title",
        "one  succeeded  ann    2023-11-14 22:13:20  2.5      rocket",
    ]
    assert job_table([]).startswith("job  status")


def test_usage_is_summed():
    lines = usage_table([Usage("ann", "2026-03-07", 12.04, 2), Usage("", "2026-03-08", 1, 1)]).splitlines()
    assert lines[1:] == ["ann    2026-03-07  2     12.0", "-      2026-03-08  1     1.0", "total              3     13.0"]


def test_usage_for_spreadsheets():
    assert usage_csv([Usage("ann, or bo", "2026-03-07", 12.0444, 2), Usage("", "2026-03-08", 1, 1)]).splitlines() == [
        "owner,day,runs,seconds",
        '"ann, or bo",2026-03-07,2,12.044',
        ",2026-03-08,1,1.000",
    ]
    assert usage_csv([]) == "owner,day,runs,seconds"
