"""Tables for the tests, and how they are written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WANTED = [[1, 2, 3], [4, 5, 6]]
F4 = pa.float32()


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


def tensors(array):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def fixed(array):
    flat = pa.array(np.ascontiguousarray(array).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
