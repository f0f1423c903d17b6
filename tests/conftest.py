"""What every test can ask for: real models, and one Ray for the whole run."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

MODELS = Path(__file__).parent / "models"
LIGHT_MODELS = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of small models in every format."""
    return MODELS


@pytest.fixture(scope="session")
def light_models() -> Path:
    """The folder of real architectures that ship with the onnx package."""
    return LIGHT_MODELS
