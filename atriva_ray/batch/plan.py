"""What a job is, before it begins: which rows, which model, written how; and what tells it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atriva_inference.errors import OptionError
from atriva_inference.ports import Port
from atriva_ray.batch.fragment_run import FragmentWork
from atriva_ray.batch.fragments import InputFile

if TYPE_CHECKING:
    from atriva_ray.model import ModelOrigin  # needs Ray, which planning does not

__all__ = ["batch_size_of", "describe", "fingerprint"]

_REQUEST_BYTES = 1 << 20
_MAX_BATCH = 256
_FORMAT_VERSION = 1


def batch_size_of(asked: int | str, inputs: Sequence[Port], outputs: Sequence[Port]) -> int:
    """Return how many rows go into one request.

    ``auto`` gives 1 unless every input and output counts rows in a dynamic first dimension; then
    the power of two that makes a request of about 1 MiB, at most 256. It depends on the model
    alone, so that a job that is resumed computes as before.

    Raises:
        OptionError: the model cannot take as many.
    """
    ports = (*inputs, *outputs)
    is_free = all(port.shape is not None and port.shape[:1] == (-1,) for port in ports)
    if asked == "auto":
        if not is_free:
            return 1
        row_bytes = sum(_row_bytes(port) for port in inputs)
        return _power_of_two(max(1, min(_MAX_BATCH, _REQUEST_BYTES // max(1, row_bytes))))
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise OptionError("batch_size", str(asked), "'auto' or a number of rows, at least 1")
    if asked > 1 and not is_free:
        fixed = next(port for port in ports if port.shape is None or port.shape[:1] != (-1,))
        raise OptionError(
            "batch_size",
            str(asked),
            f"1: {fixed} has no dynamic first dimension, so the model takes one row at a time",
        )
    return asked


def _row_bytes(port: Port) -> int:
    sizes = [dim for dim in (port.shape or ()) if dim > 0]
    size_bytes = max(1, port.dtype.itemsize)
    for size in sizes:
        size_bytes *= size
    return size_bytes


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def describe(origin: ModelOrigin, work: FragmentWork, files: Sequence[InputFile]) -> dict[str, Any]:
    """Return what a job must have in common with the one it goes on with, as plain data."""
    request = origin.request
    source = work.source
    settings: dict[str, Any] = {}
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        settings = dataclasses.asdict(source)
    top_k = work.top_k
    return {
        "format_version": _FORMAT_VERSION,
        "model": request.fingerprint,
        "backend": request.backend,
        "config": {key: str(value) for key, value in sorted(request.options.config.items())},
        "preprocessing": _plain(request.options.preprocessing),
        "input": source.kind,
        "input_files": len(files),
        "input_settings": _plain(settings),
        "columns": dict(work.columns),
        "keep": list(work.keep),
        "batch_size": work.batch_size,
        "output_format": str(work.format),
        "top_k": None
        if top_k is None
        else [top_k.count, top_k.output, fingerprint(top_k.labels) if top_k.labels else None],
        "fit": work.fit,
    }


def fingerprint(parts: Sequence[str]) -> str:
    """Return a short digest of texts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)
