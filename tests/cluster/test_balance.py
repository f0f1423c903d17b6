"""How one program's requests are spread over devices of different speed, on a real cluster."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT

FAST_S, SLOW_S = 0.02, 0.5


@pytest.fixture(scope="module")
def folder(short_tmp):
    folder = short_tmp / "balance"
    folder.mkdir()
    (folder / "negate.onnx").write_bytes(b"the paced devices do not look inside")
    return folder


@pytest.fixture(scope="module")
def driver(module_drivers, folder):
    driver = module_drivers.start(
        {
            "PYTHONPATH": str(ROOT / "tests" / "paced"),
            "PACED_DEVICES": f"GPU={FAST_S},CPU={SLOW_S}",
            "PACED_FOLDER": str(folder),
        }
    )
    driver.do(f"""
        import numpy as np
        from atriva_ray import InferenceRuntime
        runtime = InferenceRuntime("paced", address="local")
        model = runtime.load_model({str(folder / "negate.onnx")!r}, "MULTI:GPU,CPU",
                                   reserve_cpus=False)
        def ask(count, first=0):
            rows = [np.full((1, 2), first + number, "f4") for number in range(count)]
            answers = [model.submit({{"x": row}}) for row in rows]
            return all(np.array_equal(answer.result()["y"].to_numpy(), -row)
                       for answer, row in zip(answers, rows))
    """)
    assert driver.get("ask(6)")  # so that it is known how fast each is
    yield driver
    driver.do("runtime.close()")


@pytest.fixture
def asked(folder):
    """Return how many inferences each device was asked for since the test began."""

    def count(device):
        path = folder / f"{device}.asked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    before = {device: count(device) for device in ("GPU", "CPU")}
    return lambda: {device: count(device) - before[device] for device in before}


def test_a_lone_request_goes_to_the_faster_device(driver, asked):
    for _ in range(5):
        assert driver.get("ask(1)")
    assert asked() == {"GPU": 5, "CPU": 0}


def test_what_has_not_begun_is_taken_back_when_the_faster_device_falls_idle(driver, asked):
    # Two go to the fast one and two to the slow one, where the second would wait for half a second.
    assert driver.get("ask(4)")
    assert asked() == {"GPU": 3, "CPU": 1}


def test_nothing_is_lost_or_mixed_up_when_requests_move(driver, asked):
    for first in range(0, 300, 30):
        assert driver.get(f"ask(30, {first})")
    assert driver.get("model.waiting") == 0
    found = asked()
    # One that began as it was taken back runs twice, which is rare.
    assert 300 <= found["GPU"] + found["CPU"] <= 310
    assert found["GPU"] > 8 * found["CPU"]
