"""Repositories for tests, built of the small models that every test has."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.conftest import MODELS

FILES = {
    "onnx": ["onnx/conv.onnx"],
    "ir": ["ir/model.xml", "ir/model.bin"],
    "frozen": ["tensorflow/frozen.pb"],
    "tflite": ["tflite/model.tflite"],
    "paddle": ["paddle/model.pdmodel", "paddle/model.pdiparams"],
}
"""What belongs to a model of each format that is no folder."""

SAVED_MODEL = MODELS / "tensorflow" / "saved_model"


def put(folder: Path, kind: str, name: str = "") -> Path:
    """Put a model into a folder, under its own name or another one."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in FILES[kind]:
        source = MODELS / each
        shutil.copy(source, folder / (f"{name}{source.suffix}" if name else source.name))
    return folder


def write(file: Path, text: str) -> Path:
    """Write a file, with the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def by_name(listing):
    """Return the models of a listing by name."""
    models = {model.name: model for model in listing}
    assert len(models) == len(listing)
    return models
