"""Simulated failures and reports for development, by the localpart of an address.

Recipient localparts that end in `temperror` (451), `permerror` (550), three digits from 400 to 599 (that
code) or `timeout` (no answer for an hour) fail: at RCPT TO when the localpart starts with `rcptto`, at
MAIL FROM for a sender that starts with `mailfrom`, else after the message's data. What ends in `bounce` or
`complain` is taken, and a bounce or a complaint sent to MAIL FROM.
"""

from __future__ import annotations

import re

from gateway import Accept, Address, Network, Reception, Reject, TransportType, hookimpl
from gateway_localserve.answering import Answers, LocalserveTransport
from gateway_localserve.reports import wanted_reports
from gateway_smtp.settings import SmtpTransportSettings

HOUR = 3600.0  # seconds

_SPECIAL = re.compile(r"(temperror|permerror|timeout|[45]\d\d)$")


def failure(localpart: str) -> str | None:
    """What a localpart asks for: "temperror", "permerror", "timeout", a code such as "550", or None."""
    found = _SPECIAL.search(localpart.lower())
    return found[1] if found else None


class Localserve:
    def __init__(self) -> None:
        self._answers = Answers()

    @hookimpl
    def transports(self) -> dict[str, TransportType]:
        def make(name: str, settings: SmtpTransportSettings, network: Network) -> LocalserveTransport:
            return LocalserveTransport(name, settings, network, self._answers)

        return {"localserve": TransportType(SmtpTransportSettings, make)}

    @hookimpl
    def receive_policy(self, reception: Reception) -> Accept | Reject | None:
        if reception.step == "mail":
            sender = reception.reverse_path
            if sender is not None and sender.localpart.lower().startswith("mailfrom"):
                # Cut at localserve's separator: a unique MAIL FROM has a FromID behind it.
                return _simulate(Address(sender.localpart.partition("+")[0], sender.domain))
            return None
        if reception.step == "rcpt":
            *earlier, recipient = reception.recipients
            special = [r for r in reception.recipients if failure(r.localpart)]
            if earlier and special:
                return Reject(452, "4.5.3", "an address that simulates a failure shares no transaction")
            return _simulate(recipient) if recipient.localpart.lower().startswith("rcptto") else None
        for recipient in reception.recipients:
            if not recipient.localpart.lower().startswith("rcptto"):
                rejected = _simulate(recipient)
                if rejected is not None:
                    return rejected
        wanted = wanted_reports(reception)
        if wanted and not self._answers.put(wanted):
            return Reject(
                451, "4.3.0", 'nobody sends simulated reports now; a transport of type "localserve" does'
            )
        return None


def _simulate(address: Address) -> Reject | None:
    special = failure(address.localpart)
    if special is None:
        return None
    if special == "timeout":
        return Reject(451, "4.4.2", f"simulated time-out for {address}", after=HOUR)
    code = {"temperror": 451, "permerror": 550}.get(special) or int(special)
    return Reject(code, f"{code // 100}.0.0", f"simulated failure for {address}")
