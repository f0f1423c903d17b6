"""The messages of `inference.proto`, made when this is imported.

They live in a pool of their own. In protobuf's common pool, other packages (tritonclient, kserve)
register messages of the same names, and whoever came second would fail to import. And code that
`protoc` writes runs only with protobuf versions near its own, a description with all of them.

The description and the types of these classes (`messages.pyi`) are made when the package is built
or installed, by `hatch_build.py`.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_FILE = "inference.proto"
_DESCRIPTION = "inference.binpb"


def _message_classes() -> dict[str, Any]:
    description = resources.files(__package__).joinpath(_DESCRIPTION)
    try:
        data = description.read_bytes()
    except FileNotFoundError:
        raise ImportError(
            f"{description} is missing; it is made when the package is installed: in a source "
            "tree, run 'make venv'"
        ) from None
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    messages = pool.FindFileByName(_FILE).message_types_by_name
    return {name: GetMessageClass(message) for name, message in messages.items()}


# No `__all__`: which messages there are is said in inference.proto alone.
globals().update(_message_classes())
