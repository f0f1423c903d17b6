"""What the server can be asked, as an OpenAPI 3.1 document: for programs, and to be read."""

from __future__ import annotations

from typing import Any

from atriva_ray.serve.openapi_page import docs_headers, docs_page
from atriva_ray.serve.openapi_schemas import INFER_EXAMPLE, schema_ref, schemas

__all__ = ["docs_headers", "docs_page", "openapi_document"]

_JSON = "application/json"
_BINARY = "application/octet-stream"
_JSON_LENGTH = "Inference-Header-Content-Length"

_REASONS = {
    400: "The request cannot be understood, or does not fit the model.",
    401: "There was no token, or none that is known.",
    404: "There is no such model, or no such version of it.",
    408: "The request came too slowly.",
    413: "The request is larger than the server takes.",
    415: "The body is packed in a way that the server cannot unpack.",
    501: "The protocol has it, this server does not.",
    503: "Too many requests wait already, or the model cannot answer now.",
    504: "The answer took longer than the client wanted to wait.",
}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which it is worth another try.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


def openapi_document(
    version: str, *, server_name: str = "atriva", is_token_required: bool = False
) -> dict[str, Any]:
    """Return the document, as plain data to be sent as JSON.

    Args:
        version: the server's.
        server_name: as ``GET /v2`` tells it.
        is_token_required: whether requests need a token; those about health never do.
    """
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": server_name,
            "version": version,
            "summary": "Models on the network, by the Open Inference Protocol v2.",
            "description": 'Errors are JSON `{"error": "..."}`. Bodies of requests may be '
            "packed with gzip or deflate (`Content-Encoding`).",
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "Inference", "description": "Ask a model."},
            {"name": "Models", "description": "What models take, give and did."},
            {"name": "Server", "description": "The server itself."},
            {"name": "Repository", "description": "Which models there are, and which are loaded."},
        ],
        "paths": _server_paths() | _all_model_paths() | _repository_paths(),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that whoever runs the server gives out.",
                }
            },
            "responses": {
                str(status): _error(reason, may_retry=status == 503)  # noqa: PLR2004 - a status
                for status, reason in _REASONS.items()
            }
            | {"Error": _error("Something else is wrong.")},
        },
    }
    document["security"] = [{"bearer": []}] if is_token_required else []
    return document


def _server_paths() -> dict[str, Any]:
    return {
        "/v2": {"get": _get("serverMetadata", "Server", "Tell who answers", "Server")},
        "/v2/health/live": {
            "get": _get("serverLive", "Server", "Tell whether the process works", "Live")
            | {"security": []}
        },
        "/v2/health/ready": {
            "get": _flag("serverReady", "Server", "Tell whether all models are ready", "Ready")
            | {"security": []}
        },
        "/v2/models/stats": {
            "get": _get("allStatistics", "Models", "Tell what all models did", "Statistics")
        },
        "/openapi.json": {
            "get": _operation(
                "openapi",
                "Server",
                "Get this document",
                {"200": _answer("The document.", {"type": "object", "required": ["openapi"]})},
            )
        },
    }


def _all_model_paths() -> dict[str, Any]:
    name = _in_path("model_name", "Which model.")
    version = _in_path("model_version", "Which version of it; without one, the highest ready one.")
    return _model_paths("/v2/models/{model_name}", [name], "") | _model_paths(
        "/v2/models/{model_name}/versions/{model_version}", [name, version], "Version"
    )


def _model_paths(path: str, parameters: list[Any], suffix: str) -> dict[str, Any]:
    def of(name: str) -> str:
        return name + suffix

    operations: dict[str, dict[str, Any]] = {
        "": {"get": _get(of("modelMetadata"), "Models", "Tell what a model takes", "Model")},
        "/ready": {
            "get": _flag(
                of("modelReady"), "Models", "Tell whether a model would answer", "ModelReady"
            )
        },
        "/config": {
            "get": _get(of("modelConfig"), "Models", "Tell how it is served", "ModelConfig")
        },
        "/stats": {"get": _get(of("modelStatistics"), "Models", "Tell what it did", "Statistics")},
        "/infer": {"post": _infer(of("infer"))},
        "/infer-image": {"post": _infer_image(of("inferImage"))},
    }
    for item in operations.values():
        item["parameters"] = parameters
        for operation in (item[method] for method in ("get", "post") if method in item):
            operation["responses"] |= _refs(400, 404, 503) | operation["responses"]
    return {path + end: item for end, item in operations.items()}


def _infer(operation_id: str) -> dict[str, Any]:
    length = {
        "name": _JSON_LENGTH,
        "in": "header",
        "required": False,
        "description": "How many bytes of a binary body are JSON, if elements of tensors follow "
        "it. 0: there is no JSON, and the body is the model's one input.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer = _answer("What the model answered.", schema_ref("InferAnswer"))
    answer["content"][_BINARY] = {"schema": {"type": "string", "format": "binary"}}
    answer["headers"] = {
        _JSON_LENGTH: {
            "description": "How many bytes of a binary answer are JSON.",
            "schema": {"type": "integer", "minimum": 0},
        }
    }
    operation = _operation(
        operation_id,
        "Inference",
        "Run a model on tensors",
        {"200": answer} | _refs(408, 413, 415, 501, 504),
        description="Tensors are JSON, or bytes behind the JSON in the order of the inputs: "
        "little endian, row by row; text as its length in 4 bytes, then UTF-8.",
    )
    content = {
        _JSON: {"schema": schema_ref("InferRequest"), "example": INFER_EXAMPLE},
        _BINARY: {"schema": {"type": "string", "format": "binary"}},
    }
    operation["parameters"] = [length]
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _infer_image(operation_id: str) -> dict[str, Any]:
    count = {
        "name": "top_k",
        "in": "query",
        "required": False,
        "description": "How many of the best entries; else as many as the model's settings say.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    }
    picture = {"schema": {"type": "string", "format": "binary"}}
    operation = _operation(
        operation_id,
        "Inference",
        "Run a model on a picture",
        {"200": _answer("The best entries.", schema_ref("PictureAnswer"))}
        | _refs(408, 413, 415, 504),
        description="The body is a JPEG or PNG file; for models that take one picture.",
    )
    content = {"image/jpeg": picture, "image/png": picture, _BINARY: picture}
    operation["parameters"] = [count]
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _repository_paths() -> dict[str, Any]:
    index = _operation(
        "repositoryIndex",
        "Repository",
        "List every version of every model",
        {"200": _answer("The list.", schema_ref("Index"))} | _refs(400),
    )
    paths: dict[str, Any] = {
        "/v2/repository/index": {"post": index | _optional_body("IndexRequest")}
    }
    for verb in ("load", "unload"):
        done = {"200": {"description": f"The model is {verb}ed."}}
        operation = _operation(
            f"{verb}Model",
            "Repository",
            f"{verb.capitalize()} a model",
            done | _refs(400, 404, 501, 503),
        )
        paths[f"/v2/repository/models/{{model_name}}/{verb}"] = {
            "parameters": [_in_path("model_name", "Which model.")],
            "post": operation | _optional_body("RepositoryRequest"),
        }
    return paths


def _operation(
    operation_id: str, tag: str, summary: str, responses: dict[str, Any], *, description: str = ""
) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": operation_id, "tags": [tag], "summary": summary}
    if description:
        operation["description"] = description
    others = {"default": {"$ref": "#/components/responses/Error"}}
    return operation | {"responses": responses | _refs(401) | others}


def _get(operation_id: str, tag: str, summary: str, schema: str) -> dict[str, Any]:
    return _operation(operation_id, tag, summary, {"200": _answer("So it is.", schema_ref(schema))})


def _flag(operation_id: str, tag: str, summary: str, schema: str) -> dict[str, Any]:
    no = _answer("It is not, or this cannot be told.", {})
    no["content"][_JSON]["schema"] = {"anyOf": [schema_ref(schema), schema_ref("Error")]}
    no["headers"] = _RETRY_AFTER
    yes = _answer("It is.", schema_ref(schema))
    return _operation(operation_id, tag, summary, {"200": yes, "503": no})


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _error(description: str, *, may_retry: bool = False) -> dict[str, Any]:
    answer = _answer(description, schema_ref("Error"))
    return answer | {"headers": _RETRY_AFTER} if may_retry else answer


def _refs(*statuses: int) -> dict[str, Any]:
    return {str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses}


def _in_path(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
    }


def _optional_body(schema: str) -> dict[str, Any]:
    content = {_JSON: {"schema": schema_ref(schema)}}
    return {"requestBody": {"required": False, "content": content}}
