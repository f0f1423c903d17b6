"""Bodies of requests over HTTP, for tests."""

from __future__ import annotations

import json

from tritonclient.http import InferenceServerClient, InferInput

from atriva_ray.serve.protocol.datatypes import datatype_of


def sent(arrays, outputs=None, *, is_binary=True, **fields):
    """What Triton's client makes of arrays."""
    inputs = []
    for index, array in enumerate(arrays):
        each = InferInput(f"x{index}", list(array.shape), datatype_of(array.dtype))
        each.set_data_from_numpy(array, binary_data=is_binary)
        inputs.append(each)
    return InferenceServerClient.generate_request_body(inputs, outputs, **fields)


def plain(tensor=(), *, tail=b"", **fields):
    """A request with one input, changed."""
    spec = {"name": "x", "shape": [2], "datatype": "INT32", "data": [1, 2], **dict(tensor)}
    spec = {name: value for name, value in spec.items() if value is not ...}
    document = {"inputs": [spec], **fields}
    return (
        json.dumps({name: each for name, each in document.items() if each is not ...}).encode()
        + tail
    )
