from __future__ import annotations

from jobs.publications import Publication


def test_a_file_is_intended_then_published_and_never_again(store, submit):
    journal = store.journal(submit().id)
    assert journal.entries() == []
    assert journal.intend("9", "k", 0, "part", "a.png")
    assert journal.entries() == [Publication("9", "k", 0, "part", "a.png", False)]
    assert journal.intend("9", "k", 0, "part2", "b.png")  # the first try came to nothing
    assert journal.intend("9", "k", 1, "part3", "c.png")
    assert journal.published("9", "k", 0, target="d.png")
    assert journal.published("9", "k", 0)
    assert not journal.intend("9", "k", 0, "part4", "e.png")
    assert journal.entries() == [Publication("9", "k", 0, "part2", "d.png", True), Publication("9", "k", 1, "part3", "c.png", False)]


def test_jobs_keep_their_own(store, submit):
    a, b = submit().id, submit().id
    assert store.intend(a, "9", "k", 0, "part", "a.png")
    assert not store.published(b, "9", "k", 0)
    assert store.publications(b) == []
    assert not store.intend("gone", "9", "k", 0, "part", "a.png")


def test_they_outlive_a_second_start(store, submit):
    job = submit()
    store.claim("test")
    store.intend(job.id, "9", "k", 0, "part", "a.png")
    store.published(job.id, "9", "k", 0)
    store.requeue(job.id)
    store.claim("test")
    assert not store.journal(job.id).intend("9", "k", 0, "part", "a.png")
