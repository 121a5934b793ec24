"""Who gets what of a Send: one version for all, or one for each recipient.

Each recipient has one of its own where content differs: where a template is filled with its variables, or a
link unsubscribes it. Such a version names nobody else, in its header neither, so that nothing of one
recipient shows in another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.errors import SubmissionRefused
from gateway.mail.address import Address
from gateway.mail.compose import Draft, Mailbox, MissingBody
from gateway.mail.fields import FieldError
from gateway.model import Rendered
from gateway.outbound.unsubscribe import Link
from gateway.web.api import models
from gateway.web.api.calls import Call
from gateway.web.api.suppression import check_list

# Bytes of all versions that a call has: they are held in memory until the commit, which others wait for.
MAX_TOGETHER = 64 * 1024 * 1024
ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058, section 3.1

_FROM_TEMPLATE = ("Subject", "Text", "HTML")
_LIST_FIELDS = ("list-unsubscribe", "list-unsubscribe-post")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What to compose for some recipients. `place` is where the request has the only one, "" for all."""

    draft: Draft
    recipients: tuple[Address, ...]
    bcc: Sequence[Mailbox] = ()
    place: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is for one recipient, who alone gets it."""
        return bool(self.place)

    def wrong(self, exc: FieldError) -> FieldError:
        """What is wrong with this version, with whose it is."""
        if not self.is_own:
            return exc
        return FieldError(self.place, f"this recipient's {exc.field}: {exc.message}")


class Room:
    """How much the versions of a call may still have."""

    def __init__(self) -> None:
        self._left = MAX_TOGETHER

    def take(self, size: int) -> None:
        """Raises SubmissionRefused."""
        self._left -= size
        if self._left < 0:
            raise SubmissionRefused(
                "messageTooLarge",
                f"what differs for each recipient has more than {MAX_TOGETHER} bytes in all; send to fewer at"
                " a time",
            )


def check_fields(request: models.SendRequest) -> None:
    """Which fields go together. Raises SubmissionRefused, BadRequest, MissingBody."""
    check_list(request.List)
    if request.Template:
        for name in _FROM_TEMPLATE:
            if getattr(request, name):
                raise SubmissionRefused("user", f"{name}: the template has it; leave it out, or Template")
    elif not request.Text and not request.HTML:
        raise MissingBody("Text", "a message needs Text or HTML, or a Template")
    elif request.Variables or any(entry.Variables for entry in (*request.To, *request.CC, *request.BCC)):
        raise SubmissionRefused("user", "Variables: they are for a Template, and there is none")
    if request.Unsubscribe:
        for index, (name, _) in enumerate(request.Headers):
            if name.lower() in _LIST_FIELDS:
                raise SubmissionRefused("user", f"Headers[{index}]: {name} is set by Unsubscribe")


async def make_versions(
    call: Call, request: models.SendRequest, draft: Draft, bcc: Sequence[Mailbox]
) -> list[Version]:
    """`draft` names To and CC. Raises SubmissionRefused, PluginError, StoreError."""
    mailboxes = (*draft.to, *draft.cc, *bcc)
    if not request.Template and not request.Unsubscribe:
        return [Version(draft=draft, recipients=tuple(mailbox.address for mailbox in mailboxes), bcc=bcc)]
    entries = _entries(request)
    rendered = await _rendered(call, request, [entry.Variables for _, entry in entries])
    versions = []
    for (place, _), mailbox, one in zip(entries, mailboxes, rendered, strict=True):
        headers = [*draft.headers]
        if request.Unsubscribe:
            url = await _unsubscribe_url(call, request, draft, mailbox.address)
            headers += [("List-Unsubscribe", f"<{url}>"), ("List-Unsubscribe-Post", ONE_CLICK)]
        versions.append(
            Version(
                draft=replace(
                    draft,
                    to=[mailbox],
                    cc=[],
                    headers=headers,
                    subject=one.subject,
                    text=one.text,
                    html=one.html,
                ),
                recipients=(mailbox.address,),
                place=place,
            )
        )
    return versions


async def _rendered(
    call: Call, request: models.SendRequest, variables: Sequence[Mapping[str, Any]]
) -> Sequence[Rendered]:
    """What each recipient gets of the template, or of the request."""
    if not request.Template:
        return [Rendered(subject=request.Subject, text=request.Text, html=request.HTML)] * len(variables)
    together = [{**request.Variables, **own} for own in variables]
    return await call.services.templates.render(call.login.account, request.Template, together)


async def _unsubscribe_url(call: Call, request: models.SendRequest, draft: Draft, recipient: Address) -> str:
    link = Link(call.login.account, request.List, recipient, draft.message_id)
    url = await call.services.unsubscriber.url(link)
    if not url:
        raise SubmissionRefused(
            "user", "Unsubscribe: this gateway has no address for links; its operator sets web.base_url"
        )
    return url


def _entries(request: models.SendRequest) -> list[tuple[str, models.Recipient]]:
    """The recipients, with their places in the request."""
    fields = (("To", request.To), ("CC", request.CC), ("BCC", request.BCC))
    return [(f"{name}[{index}]", entry) for name, field in fields for index, entry in enumerate(field)]
