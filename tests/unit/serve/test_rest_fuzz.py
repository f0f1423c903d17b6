"""Requests over HTTP that nobody wrote: each one is either read, or refused as it should be."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.http import InferRequestedOutput

from atriva_inference.errors import InputError
from atriva_ray.errors import ServeError
from atriva_ray.serve.protocol.rest_request import parse_infer_request
from tests.unit.serve.rest_bodies import plain, sent


def bodies():
    """Requests that are right, for others to be made of."""
    text = np.array(["one", "zwölf", ""], object)
    requests = [
        sent([np.arange(3, dtype=np.float32), text]),
        sent([np.array([[True], [False]]), text], is_binary=False),
        sent([np.arange(4.0)], [InferRequestedOutput("y", class_count=2)], timeout=5, priority=1),
        (plain({"parameters": {"a": 1.5, "b": "c"}}, id="7"), None),
    ]
    return st.sampled_from(requests)


SNIPPETS = st.one_of(
    st.binary(max_size=6),
    st.sampled_from([b"null", b"-1", b"1e999", b"NaN", b"true", b"0", b"99999999999999"]),
    st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"[[]]", b'"BYTES"', b"\\ud800", b"\\u0000"]),
    st.sampled_from([b"[" * 2000, b"9" * 19, b"9" * 5000]),
)


@given(bodies(), st.data())
def test_whatever_is_sent_gets_an_answer(request_, data):
    body, header_length = request_
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(body)))
        end = min(len(body), begin + data.draw(st.integers(0, 6)))
        body = body[:begin] + data.draw(SNIPPETS) + body[end:]
    length = header_length
    if data.draw(st.booleans()):
        length = data.draw(st.none() | st.integers(-2, len(body) + 2))
    try:
        request = parse_infer_request(body, length)
    except (ServeError, InputError) as error:
        assert len(str(error)) < 2000  # noqa: PT017 - it may raise, and then it says why
    else:
        assert sum(each.array.nbytes for each in request.inputs) <= 16 * len(body) + 64


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), JSON),
    st.dictionaries(st.sampled_from(["inputs", "outputs", "id", "parameters"]), JSON),
)
def test_whatever_json_is_sent_gets_an_answer(tensor, fields):
    try:
        parse_infer_request(plain(tensor, **fields), None)
    except (ServeError, InputError) as error:
        assert str(error)  # noqa: PT017 - it may raise, and then it says why
