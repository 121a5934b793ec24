"""The stages at which filters are asked."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from typing import Annotated, Literal

import trio
from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from gateway import Reject, Submission, hookimpl
from gateway_milter.conversation import Filter
from gateway_milter.edits import Draft
from gateway_milter.protocol import CONTENT, ENVELOPE, Action, MilterError

MAX_HELD = 10_000  # submissions that are remembered until they are queued

_PLACE = re.compile(r"unix:/.+|inet:(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")


def _place(text: str) -> str:
    found = _PLACE.fullmatch(text)
    if text and (found is None or not 1 <= int(found[1] or 1) <= 65535):
        raise ValueError(f"{text!r} is neither inet:HOST:PORT nor unix:/PATH")
    return text


Place = Annotated[str, AfterValidator(_place)]


class MilterSettings(BaseModel):
    """[plugin."example.milter"]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: Place = ""  # asked about what accounts hand in
    signer: Place = ""  # asked last, to sign it
    quarantine: Literal["hold", "reject"] = "hold"  # what becomes of mail that the filter quarantines

    @model_validator(mode="after")
    def _one_of_them(self) -> MilterSettings:
        if not self.filter and not self.signer:
            raise ValueError('neither "filter" nor "signer" is set: there is nobody to ask')
        return self


class Milter:
    Settings = MilterSettings

    def __init__(self) -> None:
        self._quarantined: OrderedDict[str, None] = OrderedDict()

    @hookimpl
    async def submission(
        self, submission: Submission, settings: MilterSettings
    ) -> Submission | Reject | None:
        if not settings.filter:
            return None
        try:
            draft = _draft(submission.data, submission)
        except MilterError as exc:  # another try would not help
            return Reject(554, "5.6.0", f"no filter can be asked about the message: {exc}")
        refusal = await _look(settings.filter, draft, submission, CONTENT | ENVELOPE | Action.QUARANTINE)
        if refusal is not None:
            return refusal
        if not draft.recipients:
            return Reject(550, "5.7.1", "refused by a filter, which would deliver it to nobody")
        if draft.quarantine is not None:
            if settings.quarantine == "reject":
                return Reject(550, "5.7.1", f"quarantined by a filter: {draft.quarantine[:200]}")
            self._quarantined[submission.id] = None
            if len(self._quarantined) > MAX_HELD:
                self._quarantined.popitem(last=False)
        return replace(
            submission,
            reverse_path=draft.sender,
            recipients=tuple(draft.recipients),
            data=draft.data(),
            has_8bit=not draft.new_body().isascii(),
        )

    @hookimpl
    def hold(self, submission: Submission) -> bool | None:
        return True if submission.id in self._quarantined else None

    @hookimpl
    async def sign(self, data: bytes, submission: Submission, settings: MilterSettings) -> bytes | None:
        """A signer may change the header and the body. What it refuses is not queued either."""
        if not settings.signer:
            return None
        draft = _draft(data, submission)
        refusal = await _look(settings.signer, draft, submission, CONTENT)
        if refusal is not None:
            raise MilterError(f"the signer refuses the message: {refusal.code} {refusal.reason}")
        return draft.data()


def _draft(data: bytes, submission: Submission) -> Draft:
    return Draft.of(data, submission.reverse_path, submission.recipients, utf8=submission.smtputf8)


async def _look(place: str, draft: Draft, submission: Submission, actions: Action) -> Reject | None:
    """One connection for each message; the stage's time limit is that of all of it."""
    async with await _dial(place) as stream:
        return await Filter(stream).look(draft, submission, actions)


async def _dial(place: str) -> trio.abc.Stream:
    kind, _, where = place.partition(":")
    if kind == "unix":
        return await trio.open_unix_socket(where)
    host, _, port = where.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))
