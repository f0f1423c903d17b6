"""Decisions and the in-process package need no Ray, and neither do their tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

BLOCKED = """
import sys
sys.modules["ray"] = None
import pytest
sys.exit(pytest.main(["tests/unit", "-q", "-x", "-p", "no:cacheprovider"]))
"""


@pytest.mark.timeout(900)  # thousands of them
def test_the_unit_tests_pass_with_ray_blocked():
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:]
