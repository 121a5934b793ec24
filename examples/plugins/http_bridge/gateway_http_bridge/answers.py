"""What the service answered: a patch, and what it makes of a description."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

import jsonpatch
from jsonpointer import JsonPointerException
from pydantic import BaseModel, Field, ValidationError

from gateway import Address, AddressError, Reject, Submission
from gateway_http_bridge.describe import Json, Parts, header_field, split

MAX_OPERATIONS = 200  # of a patch
MAX_REASON = 400  # characters of a refusal
# Not "copy" and "move": with a few hundred copies of copies a short patch makes an endless description.
OPERATIONS = {"add", "remove", "replace", "test"}

_NAME = re.compile(r"[!-9;-~]{1,200}")
_VALUE = re.compile(r"[^\r\n\0]*(?:\r\n[ \t][^\r\n\0]*)*")


class BridgeError(Exception):
    """The service answered something that cannot be acted on. The stage's policy says what follows."""


class Answered(BaseModel):
    """What the gateway acts on, in a description that the service has changed."""

    class Response(BaseModel):
        code: int = Field(550, ge=400, le=599)
        enhancedCode: Annotated[str, Field(pattern=r"^([45]\.\d{1,3}\.\d{1,3})?$")] = ""  # noqa: N815
        message: Annotated[str, Field(max_length=MAX_REASON)] = "refused by policy"

    action: Literal["accept", "continue", "reject", "discard", "quarantine"]
    response: Response | None = None

    @property
    def refusal(self) -> Reject | None:
        """What is discarded is refused: nothing that was taken is lost."""
        if self.action not in ("reject", "discard"):
            return None
        said = self.response or self.Response()
        printable = "".join(c if c.isprintable() else " " for c in said.message)
        return Reject(said.code, said.enhancedCode or f"{said.code // 100}.7.1", printable)


def patch(described: Json, answer: bytes) -> None:
    """Applies a JSON Patch to a description, in place. Raises BridgeError."""
    try:
        operations = json.loads(answer)
        if not isinstance(operations, list) or len(operations) > MAX_OPERATIONS:
            raise BridgeError(f"the answer is no JSON Patch: an array of at most {MAX_OPERATIONS} operations")
        for one in operations:
            if not isinstance(one, dict) or one.get("op") not in OPERATIONS:
                raise BridgeError(f"an operation of the patch is none of {', '.join(sorted(OPERATIONS))}")
            if one.get("path") == "":
                raise BridgeError("an operation of the patch is on the whole description")
        jsonpatch.apply_patch(described, operations, in_place=True)
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, ValueError) as exc:
        raise BridgeError(f"the answer is no JSON Patch that can be applied: {exc}") from None
    except RecursionError:
        raise BridgeError("the answer is nested too deeply") from None


def read(changed: Json) -> Answered:
    try:
        return Answered.model_validate(changed)
    except ValidationError as exc:
        [first, *_] = exc.errors()
        where = "/".join(map(str, first["loc"]))
        raise BridgeError(f"/{where} of the answer: {first['msg']}") from None


def member(within: Json, name: str, kind: type) -> Any:
    value = within.get(name)
    if not isinstance(value, kind):
        raise BridgeError(f"{name!r} of the answer is no {kind.__name__}")
    return value


def changed_submission(before: Submission, parts: Parts | None, changed: Json) -> Submission | None:
    """The message, its envelope and its data changed; None if nothing is. Raises BridgeError."""
    envelope = member(changed, "envelope", dict)
    sender = address(member(envelope, "from", dict))
    recipients = tuple([address(one) for one in member(envelope, "to", list)])
    data = _changed_data(before, parts, changed)
    if (sender, recipients, data) == (before.reverse_path, before.recipients, before.data):
        return None
    body = data.partition(b"\r\n\r\n")[2]
    return replace(before, reverse_path=sender, recipients=recipients, data=data, has_8bit=not body.isascii())


def address(entry: object) -> Address:
    text = entry.get("address") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise BridgeError("an entry of /envelope has no text as its address")
    try:
        return Address.parse(text)
    except AddressError as exc:
        raise BridgeError(f"an address in /envelope: {exc}") from None


def _changed_data(before: Submission, parts: Parts | None, changed: Json) -> bytes:
    header = None
    message = member(changed, "message", dict)
    if parts is None:
        member(message, "headers", type(None))
    else:
        wanted = member(message, "headers", list)
        known = [(header_field(name, value), field) for name, value, field in parts[0]]
        if wanted != [entry for entry, _ in known]:
            header = b"".join(_rewritten(known, wanted, before.smtputf8)) + b"\r\n" + parts[1]
    raw = changed.get("rawMessage")
    if raw is None:
        return before.data if header is None else header
    if header is not None:
        raise BridgeError("the answer changes both /rawMessage and /message/headers")
    try:
        data = base64.b64decode(raw, validate=True)
    except (TypeError, ValueError):
        raise BridgeError("/rawMessage of the answer is not text in Base64") from None
    if split(data) is None:
        raise BridgeError("/rawMessage of the answer has no header that can be read, with CRLF line ends")
    return data


def _rewritten(known: list[tuple[Json, bytes]], wanted: list[Any], utf8: bool) -> list[bytes]:
    """The fields of a changed header, those that were there with the bytes that they had."""
    left = list(known)
    fields = []
    for entry in wanted:
        at = next((i for i, (there, _) in enumerate(left) if there == entry), None)
        fields.append(left.pop(at)[1] if at is not None else _field(entry, utf8))
    return fields


def _field(entry: object, utf8: bool) -> bytes:
    name, value = (entry.get("name"), entry.get("value")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BridgeError("an entry of /message/headers has no name that a field can have")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise BridgeError(f"the value of {name} in /message/headers is no text, or breaks its line")
    try:
        return f"{name}: {value}\r\n".encode("utf-8" if utf8 else "ascii")
    except UnicodeEncodeError:
        raise BridgeError(f"the value of {name} in /message/headers is not ASCII (see RFC 2047)") from None
