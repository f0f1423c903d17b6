"""Read a data set as the engine does, and check what every source promises."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from atriva_inference.ports import Port
from atriva_ray.batch.locations import list_files
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.stages import StageTimes

COLOUR = Port("image", ("image", "pixels"), np.dtype("f4"), (1, 3, 6, 4), "NCHW")
VECTOR = Port("x", ("x", "features"), np.dtype("f4"), (-1, 3), None)
SCALAR = Port("x", ("x",), np.dtype("f4"), (-1, 1), None)


def port(name="x", shape=(-1, 3), dtype="f4", layout=None):
    return Port(name, (name,), np.dtype(dtype), shape, layout)


@contextmanager
def reading(source, path, ports, columns=None, keep=(), fit="stretch", ahead=4):
    """A data set's fragments, and what to read them with."""
    filesystem, files = list_files(str(path))
    columns = columns or {}
    source = source.checked(files, filesystem, ports, columns, keep)
    fragments = source.plan(files, filesystem)
    assert fragments == source.plan(files, filesystem), "planning is not repeatable"
    assert [fragment.index for fragment in fragments] == list(range(len(fragments)))
    travelled = pickle.loads(pickle.dumps((source, fragments)))  # noqa: S301 - our own
    assert travelled == (source, fragments)
    with ThreadPoolExecutor(2) as pool:
        yield (
            source,
            fragments,
            ReadContext(
                filesystem, tuple(ports), pool, ahead, StageTimes(), fit, columns, tuple(keep)
            ),
        )


def by_fragment(source, path, ports, *, twist=None, **options):
    """The rows of each fragment; `twist` is called between planning and reading."""
    found = []
    with reading(source, path, ports, **options) as (checked, fragments, context):
        if twist:
            twist()
        kept = checked.kept(context)
        for fragment in fragments:
            rows = list(checked.read(fragment, context))
            assert fragment.row_count in (None, len(rows)), "there are not as many as planned"
            found.append(rows)
    rows = [row for rows in found for row in rows]
    identities = [tuple(row.identity.values()) for row in rows]
    assert len(set(identities)) == len(identities), "two rows have one identity"
    for row in rows:
        assert list(row.identity) == source.identity.names
        assert bool(row.bad_because) != bool(row.inputs), "a row is either good or bad"
        if row.inputs:
            assert set(row.inputs) == {each.name for each in ports}
            assert set(row.kept) == set(kept.names)
    return found


def rows_of(source, path, ports, **options):
    """All rows of a data set."""
    return [row for rows in by_fragment(source, path, ports, **options) for row in rows]


def values(rows, name="x"):
    """What the rows hold, None for bad ones."""
    return [None if row.bad_because else row.inputs[name].tolist() for row in rows]


def reasons(rows):
    """Why rows are bad."""
    return [row.bad_because for row in rows if row.bad_because]
