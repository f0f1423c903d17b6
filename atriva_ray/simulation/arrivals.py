"""`Arrivals`: requests as they once came, read from a file."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atriva_inference.errors import OptionError
from atriva_ray.errors import InputFileError

__all__ = ["Arrivals", "read_arrivals"]

_COLUMNS = ("time_s", "client", "size")
_MAX_CLIENT = 999_999


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Requests in the order in which they come.

    Attributes:
        file: where they are from.
        times_s: float64 [requests], when each comes, from the start; ascending.
        clients: int64 [requests], whose it is, from 0; None: anybody's.
        sizes: float64 [requests], how many times as long as on average a replica takes for it;
            None: as the replica groups say.
    """

    file: str
    times_s: npt.NDArray[np.float64]
    clients: npt.NDArray[np.int64] | None = None
    sizes: npt.NDArray[np.float64] | None = None

    @property
    def client_count(self) -> int:
        """How many clients there have to be for them."""
        return 1 if self.clients is None else int(self.clients.max()) + 1


def read_arrivals(file: Path) -> Arrivals:
    """Read a CSV file with the column ``time_s``, and ``client`` and ``size`` where it has them.

    The first line names the columns. The others need not be in order.

    Raises:
        InputFileError: it cannot be read, or a line is not acceptable; the message says which.
        OptionError: it lacks the column, or has others.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            names = [name.strip() for name in lines.readline().split(",")]
            _check_columns(file, names)
            try:
                with warnings.catch_warnings(action="ignore"):  # that there are none is told below
                    rows = np.loadtxt(lines, delimiter=",", ndmin=2, comments=None, quotechar='"')
            except ValueError as error:
                raise InputFileError(str(file), _first_wrong(file, names) or str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(str(file), str(error)) from error
    if not rows.size:
        raise InputFileError(str(file), "it has no requests")
    columns = dict(zip(names, rows.T, strict=False))
    if rows.shape[1] != len(names) or not all(
        _is_right(name, column).all() for name, column in columns.items()
    ):
        raise InputFileError(str(file), _first_wrong(file, names) or "its lines are not alike")
    order = np.argsort(columns["time_s"], kind="stable")
    clients, sizes = columns.get("client"), columns.get("size")
    return Arrivals(
        str(file),
        columns["time_s"][order],
        None if clients is None else clients[order].astype(np.int64),
        None if sizes is None else sizes[order],
    )


def _check_columns(file: Path, names: Sequence[str]) -> None:
    is_right = "time_s" in names and len(set(names)) == len(names) and set(names) <= set(_COLUMNS)
    if not is_right:
        expected = "the columns time_s and, if wanted, client and size, named by its first line"
        raise OptionError(f"arrivals ({file})", ",".join(names), expected)


def _is_right(name: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = np.isfinite(values) & (values >= 0)
    if name == "client":
        right &= (values <= _MAX_CLIENT) & (values == np.floor(values))
    elif name == "size":
        right &= values > 0
    return right


_EXPECTED = {
    "time_s": "a number of seconds from 0",
    "client": f"a whole number from 0 to {_MAX_CLIENT:,}",
    "size": "a number above 0",
}


def _first_wrong(file: Path, names: Sequence[str]) -> str | None:
    """What is wrong where; slowly, for a file that is known to be wrong somewhere."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        for row in reader:
            if not row:  # an empty line
                continue
            if len(row) != len(names):
                return f"line {reader.line_num}: {len(row)} values, not {len(names)}"
            for name, text in zip(names, row, strict=True):
                try:
                    number = float(text)
                except ValueError:
                    number = math.nan
                if not _is_right(name, np.array([number])).all():
                    return f"line {reader.line_num}: {name} {text!r} is not {_EXPECTED[name]}"
    return None
