"""Shared memory without a name: it is handed over with its descriptor and ends with its users."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from typing import Any

from atriva_ray.lanes.errors import FrameError

__all__ = ["attach", "create"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MAP: dict[str, Any] = {"flags": mmap.MAP_SHARED | mmap.MAP_POPULATE}
if sys.version_info >= (3, 13):  # before, a mapping keeps a duplicate of its descriptor open
    _MAP["trackfd"] = False


def create(size_bytes: int) -> tuple[mmap.mmap, int]:
    """Make memory of a fixed size; return it with the descriptor to hand over and close.

    Raises:
        OSError: there is not enough.
    """
    descriptor = os.memfd_create("atriva-slot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size_bytes)
        # Its size can never change, or a peer that shrinks it could crash whoever reads it.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return mmap.mmap(descriptor, size_bytes, **_MAP), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def attach(descriptor: int, size_bytes: int) -> mmap.mmap:
    """Map memory that was handed over, and close its descriptor.

    Raises:
        FrameError: it is not of that size, or its size could change.
        OSError: it cannot be mapped.
    """
    try:
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:
            raise FrameError("a descriptor that is no shared memory") from None
        is_sealed = seals & _SEALS == _SEALS
        if not is_sealed or not size_bytes or os.fstat(descriptor).st_size != size_bytes:
            raise FrameError("shared memory whose size is wrong or could change")
        return mmap.mmap(descriptor, size_bytes, **_MAP)
    finally:
        os.close(descriptor)
