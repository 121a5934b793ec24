"""What a client is told when something goes wrong: the one place that turns an exception into an answer.

GatewayError
├── BadRequest      400, with one of the API's codes: the request is not what the method takes
└── HttpError       another status, decided before a method runs: 401, 403, 404, 405, 503
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.errors import (
    ApiCode,
    GatewayError,
    NotVisible,
    PluginError,
    StoreError,
    StoreUnavailable,
    SubmissionRefused,
)
from gateway.mail.compose import MalformedMessageID, MissingBody
from gateway.mail.fields import FieldError
from gateway.offload import OffloadError
from gateway.web.api.services import BadCredentialsError, TooManyFailuresError

log = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds; a full disk takes longer, but a client may ask again
MAX_MESSAGE = 1000  # characters of an error message

# By the hook in which a plugin failed: what is known of what was done, and what to do.
_NOT_QUEUED = "the message was not queued; try again later"
_PLUGIN_FAILED: Mapping[str, str] = {
    "submission": _NOT_QUEUED,
    "sign": _NOT_QUEUED,
    "hold": _NOT_QUEUED,
    "template_engines": "nothing was queued or changed; try again later",
    "authenticate": "it checks logins, and yours could not be checked, so nothing was done; try again later",
    "api_methods": "how far it came is not known; look what it did before you try again",
}


class BadRequest(GatewayError):
    """The request is wrong. The text names the field's path, what is wrong and what is expected."""

    def __init__(self, code: ApiCode, message: str, *, close: bool = False) -> None:
        super().__init__(message)
        self.code: ApiCode = code
        self.close = close  # the rest of the body is not wanted: the connection ends with the answer


class HttpError(GatewayError):
    """No method is run. `headers` are the answer's, beside those that every answer has."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A status, the JSON body `{"Code": ..., "Message": ...}` and headers."""

    status: int
    code: ApiCode
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return json.dumps({"Code": self.code, "Message": self.message[:MAX_MESSAGE]}).encode()


def protocol_error(message: str) -> BadRequest:
    return BadRequest("protocol", message)


def error_answer(exc: Exception, where: str) -> ErrorAnswer:
    """The answer for an exception. What is our own fault is logged, with `where`, and told without detail."""
    match exc:
        case BadRequest():
            return ErrorAnswer(400, exc.code, str(exc), {"Connection": "close"} if exc.close else {})
        case SubmissionRefused():
            return ErrorAnswer(400, exc.code, str(exc))
        case MalformedMessageID():
            return ErrorAnswer(400, "malformedMessageID", str(exc))
        case MissingBody():
            return ErrorAnswer(400, "missingBody", str(exc))
        case FieldError():
            return ErrorAnswer(400, "user", str(exc))
        case NotVisible():
            return ErrorAnswer(400, "messageNotFound", "there is no message of this MsgID in your account")
        case PluginError():  # logged where it happened
            then = _PLUGIN_FAILED.get(exc.hook, "try again later")
            return ErrorAnswer(400, "server", f"plugin {exc.plugin} failed: {then}")
        case StoreError():
            log.log(
                logging.ERROR if isinstance(exc, StoreUnavailable) else logging.WARNING, "%s: %r", where, exc
            )
            return unavailable("the message store is away or busy, nothing was changed")
        case OffloadError():
            log.error("%s: %s", where, exc)
            return ErrorAnswer(400, "server", "the message could not be processed in time")
        case BadCredentialsError():
            return ErrorAnswer(401, "error", str(exc), {"WWW-Authenticate": "Basic realm=webapi"})
        case TooManyFailuresError():
            return ErrorAnswer(429, "error", str(exc), {"Retry-After": str(exc.retry_after)})
        case HttpError():
            return ErrorAnswer(exc.status, "error", str(exc), exc.headers)
        case _:
            log.error("%s failed", where, exc_info=exc)
            return ErrorAnswer(500, "server", "internal error; the gateway's log has the details")


def unavailable(message: str) -> ErrorAnswer:
    """503: the same request may succeed in a little while."""
    return ErrorAnswer(
        503,
        "server",
        f"{message}; try again in {RETRY_AFTER} seconds",
        {"Retry-After": str(RETRY_AFTER)},
    )
