"""Names of classes, for every command that tells them."""

from __future__ import annotations

from pathlib import Path

from atriva_ray.errors import InputFileError

__all__ = ["read_labels"]


def read_labels(path: Path) -> list[str]:
    """Return the lines of a text file.

    Raises:
        InputFileError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(str(path), f"it cannot be read as lines of text: {error}") from error
