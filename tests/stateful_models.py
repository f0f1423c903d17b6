"""Small models that remember, made with OpenVINO's own operators."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as op
from openvino.op.util import Variable, VariableInfo


def save_accumulator(path, first=0.0, rows=1, dtype=np.float32):
    """`x` float32 rows×3 → `sum`: everything of a session so far, beginning with `first`."""
    x = op.parameter([rows, 3], np.float32, name="x")
    start = op.constant(np.full((1 if rows < 0 else rows, 3), first, dtype))
    if rows < 0:
        start = op.broadcast(start, op.shape_of(x))
    variable = _variable("total", [rows, 3], dtype)
    before = op.read_value(start, variable)
    total = op.add(before, op.convert(x, np.dtype(dtype).name.replace("float", "f")))
    assign = op.assign(total, variable)
    return _save(path, op.convert(total, "f32"), "sum", [assign], [x])


def save_history(path):
    """`x` float32 1×1 → `seen` float32 1×?: every input of a session so far, in order."""
    x = op.parameter([1, 1], np.float32, name="x")
    variable = _variable("history", [1, -1], np.float32)
    before = op.read_value(op.constant(np.zeros((1, 0), np.float32)), variable)
    seen = op.concat([before, x], axis=1)
    return _save(
        path,
        op.multiply(seen, op.constant(np.float32(1))),
        "seen",
        [op.assign(seen, variable)],
        [x],
    )


def save_picky(path):
    """Like the accumulator, but fails where `shape` does not give `x` as many elements."""
    x = op.parameter([-1], np.float32, name="x")
    shape = op.parameter([2], np.int64, name="shape")
    variable = _variable("total", [1], np.float32)
    before = op.read_value(op.constant(np.zeros(1, np.float32)), variable)
    laid_out = op.reshape(x, shape, special_zero=False)
    added = op.reduce_sum(laid_out, op.constant(np.array([0, 1])), keep_dims=False)
    total = op.add(before, op.unsqueeze(added, op.constant(0)))
    return _save(path, total, "sum", [op.assign(total, variable)], [x, shape])


def _variable(name, shape, dtype):
    info = VariableInfo()
    info.data_shape = ov.PartialShape(shape)
    info.data_type = ov.Type(np.dtype(dtype))
    info.variable_id = name
    return Variable(info)


def _save(path, output, name, sinks, inputs):
    for parameter in inputs:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    output.output(0).set_names({name})
    ov.save_model(ov.Model([op.result(output)], sinks, inputs, "stateful"), path)
    return path
