"""`mox.receive`: what becomes of mail that fails DMARC (RFC 7489). All else is accepted."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway import Accept, Reception, Reject, hookimpl


class ReceiveSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    # Where mail goes whose domain asks for quarantine, such as "Junk". Empty: the Inbox, as all other mail.
    quarantine_mailbox: Annotated[
        str, Field(max_length=200, pattern=r"^([^\s\x00-\x1f]([^\x00-\x1f]*\S)?)?$")
    ] = ""


class MoxReceive:
    Settings = ReceiveSettings

    @hookimpl
    def receive_policy(self, reception: Reception, settings: ReceiveSettings) -> Accept | Reject | None:
        if reception.auth is None:
            return None
        dmarc = reception.auth.dmarc
        if dmarc.result == "temperror" and not dmarc.aligned:
            # While the policy is not known, it may be the one that counts.
            if dmarc.disposition == "reject" or dmarc.policy is None:
                return Reject(451, "4.7.0", "SPF, DKIM or DMARC of the domain in From cannot be checked now")
            return None
        if dmarc.result != "fail":
            return None
        if dmarc.disposition == "reject" and not dmarc.domain:
            return Reject(550, "5.7.26", f"DMARC: it cannot be told who this is from: {dmarc.reason}")
        if dmarc.disposition == "reject":
            return Reject(
                550, "5.7.26", "DMARC: this is not from the domain in From, which wants it rejected"
            )
        if dmarc.disposition == "quarantine" and settings.quarantine_mailbox:
            return Accept(mailbox=settings.quarantine_mailbox)
        return None
