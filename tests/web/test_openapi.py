"""The OpenAPI document: valid by a public validator, and true by schemathesis, which calls what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import httpx
import hypothesis
import openapi_spec_validator
import pytest
import schemathesis
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from gateway.model import Scope
from gateway.web.api.methods import METHODS
from gateway.web.openapi import make_document
from tests.commands import PATIENCE, Localserve, localserve
from tests.running import AUTH

BASE = "/webapi/v0/"
DOCUMENT = make_document(METHODS, BASE)
FORMS = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 12  # calls for each method and form


def test_it_is_valid_by_the_specification() -> None:
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"
    json.dumps(DOCUMENT)


def test_every_method_is_there_with_its_forms_and_answers() -> None:
    assert list(DOCUMENT["paths"]) == [f"/{name}" for name in METHODS]
    for name, method in METHODS.items():
        operation = DOCUMENT["paths"][f"/{name}"]["post"]
        assert list(operation["requestBody"]["content"]) == FORMS
        assert set(operation["responses"]) == {"200", "400", "401", "403", "429", "500", "503"}
        assert operation["tags"][0] in get_args(Scope)
        answer = operation["responses"]["200"]["content"]
        assert list(answer) == ["application/json" if method.response else "*/*"]
        keys = [parameter["name"] for parameter in operation["parameters"]]
        assert keys == (["Idempotency-Key"] if name in ("Send", "SendBatch") else [])
    form = DOCUMENT["paths"]["/Send"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert list(form["properties"]) == ["request", "alternativefile", "inlinefile", "attachedfile"]
    request = DOCUMENT["components"]["schemas"]["SendRequest"]
    assert request["additionalProperties"] is False
    assert "title" not in request["properties"]["CC"]


async def test_it_is_served(api: Any) -> None:
    answer = await api.asgi("GET", BASE + "openapi.json", {})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == DOCUMENT
    assert "openapi.json" in (await api.asgi("GET", BASE, {})).body.decode()


# --- Called as it says ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Localserve]:
    with localserve(tmp_path_factory.mktemp("openapi") / "gw") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Localserve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.api, auth=AUTH, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def schema(client: httpx.Client) -> Any:
    return schemathesis.openapi.from_dict(client.get("openapi.json").json())


@pytest.mark.parametrize("name", METHODS)
def test_whatever_is_asked_is_answered(schema: Any, client: httpx.Client, name: str) -> None:
    """Never a 500, always what the document promises."""
    operation = schema[f"/{name}"]["POST"]
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    bad = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    statuses = set()

    @hypothesis.settings(
        max_examples=EXAMPLES * len(FORMS), deadline=None, database=None, derandomize=True,
        phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=good | bad)
    def calls(case: Any) -> None:
        response = case.call(base_url=str(client.base_url), auth=AUTH, timeout=PATIENCE)
        statuses.add((case.media_type, response.status_code))
        assert response.status_code in (200, 400), response.content
        case.validate_response(response, checks=CHECKS)

    calls()
    assert {form for form, _ in statuses} == set(FORMS)
