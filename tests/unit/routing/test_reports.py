"""Reports of replicas and clients, put together."""

from __future__ import annotations

import pytest

from atriva_ray.routing.reports import LoadBook, LoadReport, ModelLoad


def report(busy_s=0.0, answered=0, queue_len=0, slots=2, time_s=None):
    return LoadReport(busy_s, answered, queue_len, 1, slots, time_s)


@pytest.fixture
def book():
    return LoadBook()


def test_busy_is_what_was_added_since_the_report_before(book):
    book.replica_reported("r1", report(100.0, answered=500), 10.0)
    book.replica_reported("r1", report(103.0, answered=530, queue_len=4, time_s=0.1), 12.0)
    book.replica_reported("r2", report(7.0), 10.0)
    book.replica_reported("r2", report(7.5, answered=5, time_s=0.3), 12.0)
    assert book.load_of("m", ["r1", "r2"], 12.0) == ModelLoad(
        busy_slots=1.75, slots_each=2, outstanding=4, service_time_s=0.2, was_asked=True
    )


def test_the_first_report_tells_by_what_runs(book):
    book.replica_reported("r1", report(50.0, queue_len=5), 10.0)
    assert book.load_of("m", ["r1"], 10.0).busy_slots == 2


def test_no_slot_is_busier_than_all_the_time(book):
    book.replica_reported("r1", report(0.0), 10.0)
    book.replica_reported("r1", report(9.0), 11.0)
    assert book.load_of("m", ["r1"], 11.0).busy_slots == 2


def test_only_new_answers_are_a_sign_of_requests(book):
    book.replica_reported("r1", report(1.0, answered=9), 10.0)
    book.replica_reported("r1", report(1.0, answered=9), 12.0)
    assert not book.load_of("m", ["r1"], 12.0).was_asked
    book.replica_reported("r1", report(1.0, answered=10), 14.0)
    assert book.load_of("m", ["r1"], 14.0).was_asked


def test_a_replica_that_says_nothing_is_unknown_and_not_idle(book):
    assert not book.load_of("m", ["r1"], 10.0).is_known
    book.replica_reported("r1", report(), 10.0)
    assert book.load_of("m", ["r1"], 10.0).is_known
    assert not book.load_of("m", ["r1", "r2"], 10.0).is_known
    assert not book.load_of("m", ["r1"], 26.0).is_known
    assert book.load_of("m", [], 26.0).is_known


def test_what_clients_wait_for_is_added_up_until_it_is_old(book):
    book.client_reported("ann", {"m": 3, "other": 9}, 10.0)
    book.client_reported("bob", {"m": 4}, 14.0)
    assert book.outstanding("m", 14.0) == 7
    assert book.load_of("m", [], 14.0).outstanding == 7
    assert book.outstanding("m", 26.0) == 4
    book.client_reported("bob", {}, 27.0)
    assert book.outstanding("m", 27.0) == 0


def test_what_is_gone_is_forgotten(book):
    for replica_id in ("r1", "r2"):
        book.replica_reported(replica_id, report(), 10.0)
    book.client_reported("ann", {"m": 3}, 10.0)
    book.keep({"r2", "r3"}, 11.0)
    assert book.report_of("r1") is None
    assert book.report_of("r2") == report()
    assert book.outstanding("m", 11.0) == 3
    book.keep(set(), 30.0)
    assert vars(book) == vars(LoadBook())
