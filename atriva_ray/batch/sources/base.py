"""What a kind of input must offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.ports import Port
from atriva_ray.batch.fragments import Fragment, InputFile
from atriva_ray.batch.rows import Row
from atriva_ray.batch.stages import StageTimes

__all__ = ["ReadContext", "Source"]


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What a source reads with.

    Attributes:
        filesystem: where the files are.
        ports: the model's inputs, preprocessing included: an image goes to the port with an image
            layout, as uint8 if that is its dtype.
        pool: threads for decoding that frees the GIL.
        ahead: rows that may be decoded before they are asked for.
        times: where the source says how long reading and decoding took.
        fit: how a picture gets to the model's size: ``stretch``, ``crop`` or ``pad``.
        columns: which column of a table feeds which input, by input name; empty: the source finds
            out, by name or because there is only one choice.
        keep: columns of a table that go to the output as they are.
    """

    filesystem: FileSystem
    ports: tuple[Port, ...]
    pool: Executor
    ahead: int
    times: StageTimes
    fit: str = "stretch"
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()


class Source(Protocol):
    """A kind of input: how it is cut and how it is read. Plain data, so that it can be sent."""

    @property
    def kind(self) -> str:
        """What people call it: ``images``, ``parquet``, …"""
        ...

    @property
    def identity(self) -> pa.Schema:
        """Names and types of the columns that tell rows apart, ``path`` first."""
        ...

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:
        """Cut files into fragments; the same files give the same fragments.

        Raises:
            InputFileError: a file is not what it should be, so that nothing of it can be read.
        """
        ...

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield the rows in order, bad ones included; never raises for what is in a file."""
        ...
