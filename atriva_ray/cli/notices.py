"""What libraries have to say of themselves, kept off the command line."""

from __future__ import annotations

import logging

__all__ = ["quiet_ray"]


def quiet_ray() -> None:
    """Show Ray's own notices only with ``--debug``; importing Ray has set its level to INFO."""
    logging.getLogger("ray").setLevel(logging.getLogger().level)
