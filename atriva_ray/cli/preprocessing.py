"""The options that declare preprocessing, for every command that loads a model for pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from atriva_inference.preprocess import Preprocessing
from atriva_ray.cli.yaml_file import read_yaml
from atriva_ray.errors import InputFileError

__all__ = ["Color", "Fit", "Layout", "Mean", "Preprocess", "Resize", "Scale", "read_preprocessing"]

_PANEL = "Preprocessing, built into the model so that pixels travel"

Preprocess = Annotated[
    Path | None,
    typer.Option(
        "--preprocess",
        help="YAML file of what follows (resize, layout, …, and input: which input takes the "
        "pixels). Flags override it.",
        rich_help_panel=_PANEL,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option("--resize", help="Height x width of the pixels: 224x224.", rich_help_panel=_PANEL),
]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="Of the pixels, NHWC or NCHW; with the model's if it leaves that open: NHWC:NCHW.",
        rich_help_panel=_PANEL,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="Subtracted from the pixels (0 to 255): one number, or one per channel: a,b,c.",
        rich_help_panel=_PANEL,
    ),
]
Scale = Annotated[
    str | None,
    typer.Option("--scale", help="What they are then divided by.", rich_help_panel=_PANEL),
]
Color = Annotated[
    str | None,
    typer.Option(
        "--color", help="What the model was trained on: rgb, bgr or gray.", rich_help_panel=_PANEL
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="How a picture comes to its size: stretch, crop or pad.",
        rich_help_panel=_PANEL,
    ),
]


def read_preprocessing(file: Path | None, **flags: str | None) -> Preprocessing | None:
    """Return what the file and the flags declare; None if there is neither.

    Args:
        file: a YAML (or JSON) mapping of the fields of `Preprocessing`.
        flags: fields by name; what is not None overrides the file.

    Raises:
        InputFileError: the file cannot be read.
        OptionError: a value is not acceptable.
    """
    given: dict[str, Any] = {name: text for name, text in flags.items() if text is not None}
    declared = {} if file is None else _read(file)
    if file is None and not given:
        return None
    return Preprocessing.from_mapping({**declared, **given})


def _read(file: Path) -> dict[str, Any]:
    declared = read_yaml(file, "batch")
    if not isinstance(declared, dict):
        raise InputFileError(str(file), "it is no mapping of names to values, like 'mean: 127.5'")
    return declared
