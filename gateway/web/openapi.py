"""The OpenAPI 3.1 document of the API, made of the models that parse the requests and write the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from gateway import __version__
from gateway.web.api.calls import FilePart
from gateway.web.api.methods import Method
from gateway.web.api.models import Refused

PATH = "openapi.json"  # below the API's base path
_REF = "#/components/schemas/{model}"
_STATUSES = {
    "400": "Refused: Code is for programs, Message for people.",
    "401": "No credentials, or wrong ones.",
    "403": "An API key without the scope, or a browser on another site's page.",
    "429": "Too many failed logins from this network; Retry-After says when to come again.",
    "500": "A fault of the gateway's.",
    "503": "The store is away or busy, or too many large requests are under way: nothing was done."
    " Retry-After says when to come again.",
}


class _Schemas(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # they would be the names, in another case


def make_document(methods: Mapping[str, Method], base_path: str) -> dict[str, Any]:
    """`base_path` has a slash at both ends."""
    refs, definitions = models_json_schema(
        [
            *((method.request, "validation") for method in methods.values()),
            *((method.response, "serialization") for method in methods.values() if method.response),
            (Refused, "serialization"),
        ],
        ref_template=_REF,
        schema_generator=_Schemas,
    )
    error = {"application/json": {"schema": refs[Refused, "serialization"]}}
    errors = {status: {"description": text, "content": error} for status, text in _STATUSES.items()}
    paths: dict[str, Any] = {}
    for method in methods.values():
        answer = refs[method.response, "serialization"] if method.response else None
        paths[f"/{method.name}"] = {
            "post": {
                "operationId": method.name,
                "summary": method.summary,
                "tags": [method.scope],
                "security": [{"basic": []}, {"bearer": []}],
                "parameters": [_KEY] if method.keeps_answer else [],
                "requestBody": _request_body(method, refs[method.request, "validation"]),
                "responses": {"200": _answer(method, answer)} | errors,
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Web API of the mail gateway",
            "version": __version__,
            "description": "Keys of requests match in any case. Absent keys and null mean the zero value.",
        },
        "servers": [{"url": base_path.rstrip("/") or "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "An address of the account, and its password or an API key.",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, which needs the scope that is the operation's tag.",
                },
            },
        },
    }


_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeat within 24 hours is answered as the first call was, and queues nothing.",
    "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
}


def _request_body(method: Method, request: Mapping[str, Any]) -> dict[str, Any]:
    """The three forms that every method takes."""
    parts: dict[str, Any] = {"request": request}
    if method.takes_files:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        parts |= {name: {"type": "array", "items": file} for name in get_args(FilePart)}
    field = {"type": "string", "contentMediaType": "application/json", "contentSchema": request}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": request, "example": method.example_request},
            "application/x-www-form-urlencoded": {"schema": _form({"request": field})},
            "multipart/form-data": {
                "schema": _form(parts),
                "encoding": {"request": {"contentType": "application/json"}},
            },
        },
    }


def _form(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(parts),
        "required": ["request"],
        "additionalProperties": False,
    }


def _answer(method: Method, answer: Mapping[str, Any] | None) -> dict[str, Any]:
    example = method.example_response
    if answer is None or isinstance(example, str):
        return {"description": "The bytes.", "content": {"*/*": {"schema": {}}}}
    return {
        "description": "Done.",
        "content": {"application/json": {"schema": answer, "example": example.model_dump(mode="json")}},
    }
