from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.serve.tally import Tally

TALLIES = st.builds(Tally, *[st.integers(0, 10**12)] * 7)


@given(st.lists(TALLIES))
def test_counts_add_up_and_the_last_inference_is_the_latest(tallies):
    total = Tally.total(tallies)
    assert total.success_count == sum(each.success_count for each in tallies)
    assert total.fail_ns == sum(each.fail_ns for each in tallies)
    assert total.last_inference_ms == max((each.last_inference_ms for each in tallies), default=0)


def test_answers_and_failures_are_counted_apart():
    tally = Tally()
    tally.answered(5, 3, 99)
    tally.failed(7)
    assert tally == Tally(
        success_count=1,
        success_ns=5,
        fail_count=1,
        fail_ns=7,
        inference_count=3,
        last_inference_ms=99,
    )
