"""An answer as it goes back over HTTP: JSON, and the elements of tensors behind it.

NaN and infinities in JSON outputs are written ``NaN``, ``Infinity`` and ``-Infinity``, as Triton
writes them and as its clients and Python's `json` read them. That is no JSON by the book: a client
whose reader is strict can ask for binary data instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from atriva_ray.serve.protocol.classification import classify
from atriva_ray.serve.protocol.datatypes import encode
from atriva_ray.serve.protocol.json_elements import json_of_array
from atriva_ray.serve.protocol.messages import InferAnswer, InferRequest, RequestedOutput

__all__ = ["BINARY_CONTENT", "JSON_CONTENT", "EncodedAnswer", "encode_answer", "encode_error"]

JSON_CONTENT = "application/json"
BINARY_CONTENT = "application/octet-stream"

_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """The body of an answer and what its headers say of it.

    Attributes:
        header: the JSON, with which the body begins.
        chunks: what follows it, in this order. They may be views of the answer's arrays, which
            must not change before they are sent.
        json_length: value of the header ``Inference-Header-Content-Length``; None if it is to be
            left out, for all of the body is JSON.
        content_type: value of the header ``Content-Type``.
    """

    header: bytes
    chunks: tuple[bytes | memoryview, ...]
    json_length: int | None
    content_type: str

    @property
    def size_bytes(self) -> int:
        """Size of the whole body."""
        return len(self.header) + sum(map(len, self.chunks))


def encode_answer(answer: InferAnswer, request: InferRequest) -> EncodedAnswer:
    """Return the body of an answer.

    Args:
        answer: what the model answered; all of its outputs are sent.
        request: what was asked: it says which outputs are sent as bytes, and which as classes.

    Raises:
        BadRequestError: an output cannot be sent as the client asked for it.
    """
    wanted = {output.name: output for output in request.outputs}
    outputs: list[dict[str, object]] = []
    chunks: list[bytes | memoryview] = []
    for each in answer.outputs:
        wish = wanted.get(each.name) or RequestedOutput(each.name)
        output = classify(each, wish.class_count) if wish.class_count else each
        entry: dict[str, object] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.array.shape,
        }
        if request.is_binary_wanted if wish.is_binary is None else wish.is_binary:
            chunk = encode(output.datatype, output.array)
            chunks.append(chunk)
            entry["parameters"] = {"binary_data_size": len(chunk)}
        else:
            entry["data"] = json_of_array(output.name, output.datatype, output.array)
        outputs.append(entry)
    document: dict[str, object] = {"model_name": answer.model_name}
    if answer.model_version:
        document["model_version"] = answer.model_version
    if answer.id:
        document["id"] = answer.id
    document["outputs"] = outputs
    header = _to_json(document).encode()
    return EncodedAnswer(
        header=header,
        chunks=tuple(chunks),
        json_length=len(header) if chunks else None,
        content_type=BINARY_CONTENT if chunks else JSON_CONTENT,
    )


def encode_error(message: str) -> bytes:
    """Return the body of an answer that is an error."""
    return _to_json({"error": message}).encode()
