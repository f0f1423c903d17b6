"""What libraries have to say of themselves, kept off the command line."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

__all__ = ["hushed", "quiet_ray", "shows_notices"]


def quiet_ray() -> None:
    """Show Ray's own notices only with ``--debug``."""
    import ray  # noqa: F401, PLC0415 - importing it later would set its level to INFO again

    logging.getLogger("ray").setLevel(logging.getLogger().level)


def shows_notices() -> bool:
    """Whether ``--debug`` was given."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


@contextmanager
def hushed() -> Iterator[None]:
    """Keep what Ray prints by itself off stdout as long as the block lasts, but with ``--debug``.

    For starts and ends: Ray tells of every call that ends with the actor it was for, also where
    that was the plan, and no setting of Ray keeps it from doing so.
    """
    if shows_notices():
        yield
        return
    with redirect_stdout(io.StringIO()):
        yield
