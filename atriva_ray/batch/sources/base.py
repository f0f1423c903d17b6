"""What a kind of input must offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, Self

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
        """What people call it, ``images`` for example."""
        ...

    @property
    def identity(self) -> pa.Schema:
        """Names and types of the columns that tell rows apart, ``path`` first."""
        ...

    def checked(
        self,
        files: Sequence[InputFile],
        filesystem: FileSystem,
        ports: Sequence[Port],
        columns: Mapping[str, str],
        keep: Sequence[str],
    ) -> Self:
        """Return the source to plan and read with, which knows what feeds which input.

        It looks into the first file that can be read. Files that cannot are not complained about.

        Raises:
            InputError: the model does not take what is in the files.
            InputFileError: there is no such column, or more than one that could be meant; or a
                library is missing.
            OptionError: columns are named where there are none.
        """
        ...

    def kept(self, context: ReadContext) -> pa.Schema:
        """Names and types of `Row.kept`."""
        ...

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:
        """Cut files into fragments; the same files give the same fragments.

        A file that cannot be read gives a fragment as well, which gives one bad row.
        """
        ...

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield the rows in order, bad ones included; never raises for what is in a file.

        What is wrong with a file as a whole is one bad row, whose ``row`` or ``frame`` is -1, or
        the number of the first that is missing. There are as many rows as planned, if that is
        known, whatever has become of the file.

        Raises:
            InputError: the model does not take what the source gives, see `checked`.
        """
        ...
