"""Makes what the package needs but nobody writes: descriptions of the messages that gRPC carries.

From ``inference.proto`` come, beside it, ``inference.binpb``, of which the messages are made when
the package is imported, and ``messages.pyi``, by which their use is type-checked.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("atriva_ray", "serve", "rpc")
_PROTO = "inference.proto"
_DESCRIPTION = "inference.binpb"
_TYPES = "messages.pyi"

# Types of protobuf itself may not be there, and those of the fields are of use all the same.
_TYPES_HEAD = "# mypy: ignore-errors\n"


class MessageBuildHook(BuildHookInterface):
    """Runs for wheels and for editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Make the files and have them packed, although git ignores them."""
        folder = Path(self.root, _FOLDER)
        with tempfile.TemporaryDirectory() as name:
            made = Path(name)
            arguments = (
                "protoc",
                f"--proto_path={folder}",
                f"--descriptor_set_out={made / _DESCRIPTION}",
                f"--pyi_out={made}",
                _PROTO,
            )
            if protoc.main(arguments) != 0:
                raise RuntimeError(f"protoc cannot compile {folder / _PROTO}; it said why above")
            types = made / f"{Path(_PROTO).stem}_pb2.pyi"
            _put(folder / _DESCRIPTION, (made / _DESCRIPTION).read_bytes())
            _put(folder / _TYPES, _TYPES_HEAD.encode() + types.read_bytes())
        packed = [_FOLDER / each for each in (_DESCRIPTION, _TYPES)]
        build_data["artifacts"] += [f"/{path.as_posix()}" for path in packed]


def _put(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    # Programs that run from this folder see the old file or the new one, never a part of it.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)
