"""Programs that ask one replica at the same time get the answers that they get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.conftest import EXAMPLES

DIGITS = str(EXAMPLES / "models" / "digits.onnx")

FRAMES = """
frames = [np.random.default_rng(n).random((1 + (n % 9 == 0), 1, 8, 8), "f4") for n in range(900)]
"""
TOGETHER = """
with model.create_stream() as stream:
    answers = [a["output"].to_numpy() for a in stream.map({"input": frame} for frame in frames)]
"""
REPORT = """
import ray
(line,) = model._executor._lines.values()
report = ray.get(line.actor.batching_report.remote())
"""


def test_many_programs_share_batches_of_a_real_model(driver_on):
    drivers = [driver_on() for _ in range(2)]
    for driver in drivers:
        driver.do(f"model = runtime.load_model({DIGITS!r}, name='shared')")
        driver.do(FRAMES)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda driver: driver.do(TOGETHER), drivers))
    for driver in drivers:
        driver.do("alone = [model.run({'input': frame})['output'].to_numpy() for frame in frames]")
        assert driver.get("all(np.array_equal(a, b) for a, b in zip(answers, alone))")
        assert driver.get("len(answers)") == 900
    drivers[0].do(REPORT)
    assert drivers[0].get("max(size.rows for size in report.shapes[0].sizes)") >= 4
    assert drivers[0].get("sum(size.runs for size in report.shapes[0].sizes)") < 4 * 900
    assert not drivers[0].get("report.is_mixing")


def test_a_model_that_is_not_to_be_batched_has_nothing_to_report(driver_on):
    driver = driver_on()
    driver.do(f"model = runtime.load_model({DIGITS!r}, batching=False)")
    driver.do(REPORT)
    assert driver.get("report is None")
