"""The calls of the Open Inference Protocol over gRPC."""

# Types of gRPC may not be there.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc

from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.protocol.datatypes import Buffer
from atriva_ray.serve.protocol.wording import shown
from atriva_ray.serve.rpc.codec import answer_parts, parse_infer, parse_message
from atriva_ray.serve.rpc.descriptions import (
    config_message,
    index_message,
    metadata_message,
    statistics_message,
)
from atriva_ray.serve.rpc.failures import explain, is_being_cancelled, refuse
from atriva_ray.serve.rpc.messages import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelRepositoryParameter,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    ModelStreamInferResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from atriva_ray.serve.rpc.stream import answer_stream
from atriva_ray.serve.rpc.wire import field_parts, joined
from atriva_ray.serve.server_face import InferenceServer, RepositoryValue

__all__ = ["SERVICE", "make_handler"]

SERVICE = "inference.GRPCInferenceService"

_STREAM_LIMIT = 64
_STREAM_ANSWER = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Request = TypeVar("Request")


def make_handler(
    server: InferenceServer, stream_limit: int = _STREAM_LIMIT
) -> grpc.GenericRpcHandler:
    """Return what a gRPC server of asyncio answers the protocol's calls with.

    Args:
        server: who answers.
        stream_limit: how many requests of one stream may be under way.
    """
    calls = _Calls(server, stream_limit)
    one_to_one: tuple[tuple[str, type[Any], Callable[[Any], Awaitable[Any]]], ...] = (
        ("ServerLive", ServerLiveRequest, calls.server_live),
        ("ServerReady", ServerReadyRequest, calls.server_ready),
        ("ServerMetadata", ServerMetadataRequest, calls.server_metadata),
        ("ModelReady", ModelReadyRequest, calls.model_ready),
        ("ModelMetadata", ModelMetadataRequest, calls.model_metadata),
        ("ModelConfig", ModelConfigRequest, calls.model_config),
        ("ModelStatistics", ModelStatisticsRequest, calls.model_statistics),
        ("RepositoryIndex", RepositoryIndexRequest, calls.repository_index),
        ("RepositoryModelLoad", RepositoryModelLoadRequest, calls.load),
        ("RepositoryModelUnload", RepositoryModelUnloadRequest, calls.unload),
    )
    # Messages are parsed and written here rather than by gRPC: what cannot be parsed is then told
    # as it should be, and large fields are copied less often.
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            partial(_answer, name, partial(_parse_and_call, kind, call))
        )
        for name, kind, call in one_to_one
    }
    handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(
        partial(_answer, "ModelInfer", calls.infer)
    )
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(calls.infer_stream)
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


async def _answer(
    method: str,
    call: Callable[[bytes, Context], Awaitable[bytes]],
    data: bytes,
    context: Context,
) -> bytes:
    try:
        return await call(data, context)
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        # Something that it waited for was cancelled. gRPC would never answer.
        await refuse(context, error, method)
    except Exception as error:  # noqa: BLE001 - a client is told, whatever it is
        await refuse(context, error, method)


async def _parse_and_call(
    kind: type[Request],
    call: Callable[[Request], Awaitable[Any]],
    data: bytes,
    context: Context,  # noqa: ARG001 - all calls are called alike
) -> bytes:
    message = await call(parse_message(kind, data))
    content: bytes = message.SerializeToString()
    return content


class _Calls:
    """The calls, each from a message to a message."""

    def __init__(self, server: InferenceServer, stream_limit: int) -> None:
        self._server = server
        self._stream_limit = stream_limit

    async def server_live(self, request: ServerLiveRequest) -> ServerLiveResponse:  # noqa: ARG002
        return ServerLiveResponse(live=self._server.is_live())

    async def server_ready(self, request: ServerReadyRequest) -> ServerReadyResponse:  # noqa: ARG002
        return ServerReadyResponse(ready=self._server.is_ready())

    async def server_metadata(
        self,
        request: ServerMetadataRequest,  # noqa: ARG002 - it is empty
    ) -> ServerMetadataResponse:
        metadata = self._server.metadata()
        return ServerMetadataResponse(
            name=metadata.name, version=metadata.version, extensions=metadata.extensions
        )

    async def model_ready(self, request: ModelReadyRequest) -> ModelReadyResponse:
        is_ready = await self._server.is_model_ready(request.name, request.version)
        return ModelReadyResponse(ready=is_ready)

    async def model_metadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse:
        return metadata_message(await self._server.model_metadata(request.name, request.version))

    async def model_config(self, request: ModelConfigRequest) -> ModelConfigResponse:
        config = await self._server.config(request.name, request.version)
        return ModelConfigResponse(config=config_message(config))

    async def model_statistics(self, request: ModelStatisticsRequest) -> ModelStatisticsResponse:
        all_statistics = await self._server.statistics(request.name, request.version)
        return ModelStatisticsResponse(model_stats=map(statistics_message, all_statistics))

    async def repository_index(self, request: RepositoryIndexRequest) -> RepositoryIndexResponse:
        _check_repository(request.repository_name)
        return index_message(await self._server.repository_index(request.ready))

    async def load(self, request: RepositoryModelLoadRequest) -> RepositoryModelLoadResponse:
        name = _model_name(request)
        await self._server.load(name, _parameters(request.parameters))
        return RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def unload(self, request: RepositoryModelUnloadRequest) -> RepositoryModelUnloadResponse:
        name = _model_name(request)
        await self._server.unload(name, _parameters(request.parameters))
        return RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    async def infer(self, data: bytes, context: Context) -> bytes:
        return joined(await self._infer(parse_message(ModelInferRequest, data), context))

    async def infer_stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        answer = partial(self._infer_for_stream, context=context)
        await answer_stream(requests, context, answer, self._stream_limit)

    async def _infer(self, message: ModelInferRequest, context: Context) -> list[Buffer]:
        name, version = message.model_name, message.model_version
        request = parse_infer(message)
        left_s = context.time_remaining()
        if left_s is not None and (request.timeout_s is None or left_s < request.timeout_s):
            request = replace(request, timeout_s=left_s)
        answer = await self._server.infer(name, version, request)
        return answer_parts(answer, request)

    async def _infer_for_stream(self, data: bytes, context: Context) -> bytes:
        message = None
        try:
            message = parse_message(ModelInferRequest, data)
            parts = await self._infer(message, context)
            return joined(field_parts(_STREAM_ANSWER, parts))
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            problem: BaseException = error
        except Exception as error:  # noqa: BLE001 - the request fails, the others go on
            problem = error
        _, details = explain(problem, "ModelStreamInfer")
        failed = ModelStreamInferResponse(error_message=details)
        if message is not None:
            # So clients know which of their requests it was.
            failed.infer_response.model_name = message.model_name
            failed.infer_response.model_version = message.model_version
            failed.infer_response.id = message.id
        content: bytes = failed.SerializeToString()
        return content


def _model_name(request: RepositoryModelLoadRequest | RepositoryModelUnloadRequest) -> str:
    """Return whom a load or an unload means; clients of KServe say it in another field."""
    if request.model_name:
        _check_repository(request.repository_name)
        return request.model_name
    if request.repository_name:
        return request.repository_name
    raise BadRequestError("the request names no model; set model_name")


def _check_repository(name: str) -> None:
    if name:
        raise NotSupportedError(
            f"a repository {shown(name)}: it has one only, without a name; leave repository_name "
            "empty"
        )


def _parameters(values: Mapping[str, ModelRepositoryParameter]) -> dict[str, RepositoryValue]:
    parameters: dict[str, RepositoryValue] = {}
    for name, value in values.items():
        field = value.WhichOneof("parameter_choice")
        if field is None:
            raise BadRequestError(f"parameter {shown(name)} has no value; give it one")
        parameters[name] = getattr(value, field)
    return parameters
