"""Django's EMAIL_BACKEND: each message is a call of the gateway's method Send, a batch one of SendBatch."""

from __future__ import annotations

import json
from base64 import b64encode
from copy import copy
from typing import Any

from anymail.backends.base_requests import AnymailRequestsBackend, RequestsPayload
from anymail.exceptions import AnymailRequestsAPIError
from anymail.message import AnymailRecipientStatus
from anymail.utils import Attachment, EmailAddress, get_anymail_setting

ESP_NAME = "Mail Gateway"
TAGS = "anymail_tags"  # the key of Extra that holds the message's tags, as a JSON list


class EmailBackend(AnymailRequestsBackend):
    """Settings in ANYMAIL: MAIL_GATEWAY_API_URL, MAIL_GATEWAY_LOGIN, MAIL_GATEWAY_PASSWORD."""

    esp_name = ESP_NAME

    def __init__(self, **kwargs: Any) -> None:
        url = get_anymail_setting("api_url", esp_name=ESP_NAME, kwargs=kwargs)
        login = get_anymail_setting("login", esp_name=ESP_NAME, kwargs=kwargs)
        password = get_anymail_setting("password", esp_name=ESP_NAME, kwargs=kwargs)
        self.credentials = (login, password)
        super().__init__(url if url.endswith("/") else f"{url}/", **kwargs)

    def build_message_payload(self, message: Any, defaults: dict[str, Any]) -> Payload:
        return Payload(message, defaults, self, auth=self.credentials)

    def parse_recipient_status(self, response: Any, payload: Payload, message: Any) -> dict[str, Any]:
        answer = self.deserialize_json_response(response, payload, message)
        results = answer["Results"] if payload.is_batch() else [answer]
        statuses = {}
        try:
            for result, recipients in zip(results, payload.recipients_of_each(), strict=True):
                if "Submissions" in result:
                    status = AnymailRecipientStatus(message_id=result["MessageID"], status="queued")
                else:  # of a batch: this one was refused
                    status = AnymailRecipientStatus(message_id=None, status="failed")
                statuses |= dict.fromkeys(recipients, status)
        except (KeyError, TypeError, ValueError) as error:
            raise AnymailRequestsAPIError(
                "The gateway's answer has another form than expected",
                email_message=message, payload=payload, response=response, backend=self,
            ) from error  # fmt: skip
        return statuses


class Payload(RequestsPayload):
    """A request for Send; with merge_metadata or merge_headers for SendBatch: a message for each `to`."""

    def init_payload(self) -> None:
        self.data: dict[str, Any] = {}
        self.headers = {"Content-Type": "application/json"}
        self.metadata_of: dict[str, dict[str, Any]] = {}  # by recipient
        self.headers_of: dict[str, dict[str, str]] = {}

    def get_api_endpoint(self) -> str:
        return "SendBatch" if self.is_batch() else "Send"

    def serialize_data(self) -> str:
        return self.serialize_json({"Messages": self._batch()} if self.is_batch() else self.data)

    def recipients_of_each(self) -> list[list[str]]:
        """The recipients of each message that this makes."""
        messages = self._batch() if self.is_batch() else [self.data]
        return [
            [recipient["Address"] for key in ("To", "CC", "BCC") for recipient in message.get(key, ())]
            for message in messages
        ]

    def _batch(self) -> list[dict[str, Any]]:
        messages = []
        for recipient in self.data.get("To", ()):
            message = copy(self.data)
            message["To"] = [recipient]
            if own := self.metadata_of.get(recipient["Address"]):
                message["Extra"] = message.get("Extra", {}) | _strings(own)
            if more := self.headers_of.get(recipient["Address"]):
                replaced = {name.lower() for name in more}
                kept = [field for field in message.get("Headers", ()) if field[0].lower() not in replaced]
                message["Headers"] = [*kept, *(list(field) for field in more.items())]
            messages.append(message)
        return messages

    # What Django's messages have

    def set_from_email(self, email: EmailAddress) -> None:
        self.data["From"] = [_address(email)]

    def set_recipients(self, recipient_type: str, emails: list[EmailAddress]) -> None:
        if emails:
            self.data[{"to": "To", "cc": "CC", "bcc": "BCC"}[recipient_type]] = [_address(e) for e in emails]

    def set_reply_to(self, emails: list[EmailAddress]) -> None:
        self.data["ReplyTo"] = [_address(email) for email in emails]

    def set_subject(self, subject: str) -> None:
        self.data["Subject"] = subject

    def set_extra_headers(self, headers: Any) -> None:
        if message_id := headers.pop("Message-ID", None):
            self.data["MessageID"] = message_id
        self.data["Headers"] = [[name, str(value)] for name, value in headers.items()]

    def set_text_body(self, body: str) -> None:
        self.data["Text"] = body

    def set_html_body(self, body: str) -> None:
        if "HTML" in self.data:
            self.unsupported_feature("multiple html parts")
        self.data["HTML"] = body

    def add_alternative(self, content: str | bytes, mimetype: str) -> None:
        data = content.encode() if isinstance(content, str) else content
        file = {"ContentType": mimetype, "Data": b64encode(data).decode("ascii")}
        self.data.setdefault("AlternativeFiles", []).append(file)

    def add_attachment(self, attachment: Attachment) -> None:
        file = {
            "Name": attachment.name or "",
            "ContentType": attachment.mimetype,
            "ContentID": f"<{attachment.cid}>" if attachment.inline and attachment.cid else "",
            "Data": attachment.b64content,
        }
        self.data.setdefault("InlineFiles" if attachment.inline else "AttachedFiles", []).append(file)

    # What Anymail adds

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        self.data.setdefault("Extra", {}).update(_strings(metadata))

    def set_merge_metadata(self, merge_metadata: dict[str, dict[str, Any]]) -> None:
        self.metadata_of = merge_metadata

    def set_merge_headers(self, merge_headers: dict[str, dict[str, str]]) -> None:
        self.headers_of = merge_headers

    def set_tags(self, tags: list[str]) -> None:
        self.data.setdefault("Extra", {})[TAGS] = json.dumps(tags)

    def set_send_at(self, send_at: Any) -> None:
        self.data["FutureRelease"] = send_at.isoformat()

    def set_esp_extra(self, extra: dict[str, Any]) -> None:
        """Any field of Send, such as `{"RequireTLS": True}`."""
        self.data.update(extra)


def _address(email: EmailAddress) -> dict[str, str]:
    return {"Name": email.display_name, "Address": email.addr_spec}


def _strings(metadata: dict[str, Any]) -> dict[str, str]:
    """Extra has only strings."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
