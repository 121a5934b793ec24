"""What the commands choose messages and webhook calls by: all conditions that are given must match."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from gateway.model import EventName
from gateway.store import call_listing, listing
from gateway.web.control.app import Request

ID = Annotated[int, Field(ge=0, lt=2**63)]
TEN_YEARS = 10 * 365 * 86400.0  # seconds


class OneRequest(Request):
    ID: ID


class Times(Request):
    Before: AwareDatetime | None = None
    After: AwareDatetime | None = None


class CommonFilter(Request):
    """What messages and webhook calls have in common."""

    IDs: Annotated[tuple[ID, ...], Field(max_length=listing.MAX_IDS)] | None = None
    Account: str = ""
    Submitted: Times = Times()
    NextAttempt: Times = Times()
    State: Literal["queued", "retired"] | None = None  # null: both

    def _common(self) -> dict[str, Any]:
        return {
            "ids": self.IDs,
            "account": self.Account,
            "submitted_before": self.Submitted.Before,
            "submitted_after": self.Submitted.After,
            "next_attempt_before": self.NextAttempt.Before,
            "next_attempt_after": self.NextAttempt.After,
            "state": self.State,
        }


class MessageFilter(CommonFilter):
    From: str = ""  # From and To: a part of the address
    To: str = ""
    Hold: bool | None = None
    Transport: str | None = None
    MessageID: str = ""  # with its angle brackets or without
    FromID: str = ""
    Success: bool | None = None  # of retired messages, as LastActivity
    LastActivity: Times = Times()

    def filter(self) -> listing.Filter:
        message_id = self.MessageID
        if message_id and not message_id.startswith("<"):
            message_id = f"<{message_id}>"
        return listing.Filter(
            **self._common(),
            from_=self.From,
            to=self.To,
            hold=self.Hold,
            transport=self.Transport,
            message_id=message_id,
            from_id=self.FromID,
            success=self.Success,
            last_activity_before=self.LastActivity.Before,
            last_activity_after=self.LastActivity.After,
        )


class CallFilter(CommonFilter):
    URL: str = ""
    Event: EventName | Literal["incoming", ""] = ""

    def filter(self) -> call_listing.CallFilter:
        return call_listing.CallFilter(**self._common(), url=self.URL, event_name=self.Event)


class ReplayFilter(Request):
    """Of calls that are over."""

    IDs: Annotated[tuple[ID, ...], Field(max_length=listing.MAX_IDS)] | None = None
    Account: str = ""
    URL: str = ""
    Event: EventName | Literal["incoming", ""] = ""
    Submitted: Times = Times()
    Failed: bool = False

    def filter(self) -> call_listing.CallFilter:
        return call_listing.CallFilter(
            ids=self.IDs,
            account=self.Account,
            url=self.URL,
            event_name=self.Event,
            submitted_before=self.Submitted.Before,
            submitted_after=self.Submitted.After,
            success=False if self.Failed else None,
        )


class PageRequest(Request):
    Asc: bool = True
    Cursor: Annotated[str, Field(max_length=1000)] = ""  # as the page before ended with
    Max: Annotated[int, Field(ge=1, le=1000)] = 100
