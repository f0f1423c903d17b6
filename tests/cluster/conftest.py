"""Clusters and programs for the tests; what they start, they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.tools import Driver


class Drivers:
    """Starts programs, and ends those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Driver] = []

    def start(self, env: dict[str, str] | None = None, wrapper: list[str] | None = None) -> Driver:
        driver = Driver(env or {}, self._folder, wrapper)
        self._started.append(driver)
        return driver

    def join(self, address: str) -> Driver:
        """Start a program that joins a cluster."""
        driver = self.start({"RAY_ADDRESS": address})
        driver.do("""
            import numpy as np, ray, os
            import atriva_ray
            from atriva_ray import *
            runtime = InferenceRuntime()
        """)
        return driver

    def close(self) -> None:
        for driver in self._started:
            if driver.process.poll() is None:
                driver.close()


@pytest.fixture
def drivers(short_tmp):
    """Programs of one test."""
    started = Drivers(short_tmp)
    yield started
    started.close()


@pytest.fixture(scope="module")
def module_drivers(short_tmp):
    """Programs that all tests of a module share."""
    started = Drivers(short_tmp)
    yield started
    started.close()


@pytest.fixture
def start_driver(drivers):
    """Start a program with an environment of its own."""
    return drivers.start


@pytest.fixture
def driver_on(cluster, drivers):
    """Start a program that joins the cluster."""
    return lambda: drivers.join(cluster.address)
