from __future__ import annotations

import json
import re

import jsonschema
import pytest
import schemathesis
from schemathesis.specs.openapi import definitions

from atriva_ray.errors import OverloadedError
from atriva_ray.serve.http_errors import error_answer
from atriva_ray.serve.openapi import docs_page, openapi_document
from atriva_ray.serve.openapi_schemas import INFER_EXAMPLE

DOCUMENT = openapi_document("1.2.3", server_name="here", is_token_required=True)
METHODS = ("get", "post")


def operations():
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, item, item[method]


def validator(name):
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(schema)


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_it_is_an_openapi_document():
    errors = jsonschema.Draft202012Validator(definitions.OPENAPI_31).iter_errors(DOCUMENT)
    assert [error.message for error in errors] == []
    json.dumps(DOCUMENT)


def test_all_of_its_schemas_are_schemas():
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_all_references_lead_somewhere():
    for reference in references(DOCUMENT):
        place = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_nothing_is_described_that_nobody_refers_to():
    used = set(references(DOCUMENT))
    for kind in ("schemas", "responses"):
        assert {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} <= used


def test_it_has_every_address():
    model, version = "/v2/models/{model_name}", "/versions/{model_version}"
    ends = ("", "/ready", "/config", "/stats", "/infer", "/infer-image")
    repository = "/v2/repository/models/{model_name}"
    assert set(DOCUMENT["paths"]) == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/repository/index",
        f"{repository}/load",
        f"{repository}/unload",
        "/openapi.json",
        *(model + end for end in ends),
        *(model + version + end for end in ends),
    }


def test_parameters_of_paths_are_those_in_them():
    for path, item, operation in operations():
        parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
        in_path = {each["name"] for each in parameters if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path))
        assert len({(each["in"], each["name"]) for each in parameters}) == len(parameters)


def test_operations_have_names_of_their_own():
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names)) == 20


def test_every_operation_tells_of_errors():
    for _, _, operation in operations():
        assert {"200", "401", "default"} <= set(operation["responses"])


def test_only_health_needs_no_token():
    for path, _, operation in operations():
        assert ("security" in operation) == path.startswith("/v2/health/")
    assert DOCUMENT["security"] == [{"bearer": []}]
    assert openapi_document("1")["security"] == []


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("InferRequest", INFER_EXAMPLE),
        (
            "InferRequest",
            {
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "BYTES",
                        "shape": [1],
                        "parameters": {"binary_data_size": 7},
                    }
                ]
            },
        ),
        (
            "InferAnswer",
            {
                "model_name": "net",
                "outputs": [
                    {
                        "name": "y",
                        "datatype": "FP32",
                        "shape": [1, 2],
                        "data": [[0.5, float("nan")]],
                    }
                ],
            },
        ),
        (
            "PictureAnswer",
            {
                "model_name": "net",
                "outputs": [{"name": "y", "classes": [{"index": 1, "score": 2}]}],
            },
        ),
        ("Index", [{"name": "net", "version": "1", "state": "READY"}, {"name": "other"}]),
        ("Error", json.loads(error_answer(OverloadedError(3, 2, 1.0)).body)),
    ],
)
def test_what_is_sent_fits(name, good):
    validator(name).validate(good)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"inputs": []},
        {"inputs": [{"name": "x", "shape": [1], "data": [1]}]},
        {"inputs": [{"name": "x", "shape": [-1], "datatype": "FP32", "data": [1]}]},
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FLOAT", "data": [1]}]},
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [{}]}]},
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}], "parameters": {"a": []}},
    ],
)
def test_requests_that_are_none_do_not_fit(bad):
    assert not validator("InferRequest").is_valid(bad)


def test_schemathesis_can_make_requests_of_it():
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    assert len([result.ok() for result in schema.get_all_operations()]) == 20
    operation = schema["/v2/models/{model_name}/infer"]["POST"]
    case = operation.Case(path_parameters={"model_name": "net"})
    assert case.formatted_path == "/v2/models/net/infer"


def test_the_page_has_every_operation_and_every_shape():
    page = docs_page(DOCUMENT)
    for path, _, operation in operations():
        assert f'id="{operation["operationId"]}"' in page
        assert f"<code>{path}</code>" in page
    anchors = set(re.findall(r'href="#(\w+)"', page))
    assert anchors <= set(re.findall(r'id="(\w+)"', page))
    assert "Authorization: Bearer" in page
    assert "Authorization: Bearer" not in docs_page(openapi_document("1"))


def test_the_page_takes_names_as_text():
    page = docs_page(openapi_document("<1>", server_name="<script>x</script>"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
