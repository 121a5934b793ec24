"""One host of a recipient's domain, at one address: connections to it that have the TLS that it needs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import trio

from gateway import NextHop, Outcome, TlsResult
from gateway.clock import Clock
from gateway.net.plan import Check, Host, IpAddress, Plan
from gateway.net.shaping import Place, Shaper, Share
from gateway.net.smtp_client import SmtpConnection, connect_smtp
from gateway.net.smtp_client_settings import ClientSettings, Dial, TlsPolicy
from gateway.net.tls import TlsStream
from gateway.net.tls_checks import Verdict, with_tls, without_tls
from gateway.net.tls_results import TlsFault
from gateway.smtp import results
from gateway.smtp.results import Fate
from gateway.smtp.transaction import NO_REQUIRETLS
from gateway_smtp.connections import Connections, Kept
from gateway_smtp.handover import error_text

MAX_VERDICTS = 10  # remembered of a connection: whoever writes the DNS makes as many needs as he likes
_POLICIES = {"tlsa": "DANE", "sts": "MTA-STS"}


@dataclass(slots=True)
class Record:
    """What an attempt did on the network, for the message's history and for TLS reports."""

    dialed: dict[str, list[str]] = field(default_factory=dict)  # addresses by host
    tls_results: list[TlsResult] = field(default_factory=list)
    dials: int = 0  # connections that were tried

    def plan(self, domain: str, plan: Plan) -> None:
        """What is known before anybody has connected."""
        if plan.policy_fault is not None:
            check = Check(type="sts", domain=domain)
            self._add(domain, "", Verdict(check, plan.policy_fault))
        for skipped in plan.skipped:
            if skipped.check is not None:
                self._add(domain, skipped.name, Verdict(skipped.check, skipped.check.fault))

    def verdicts(
        self, domain: str, host: str, connection: SmtpConnection, verdicts: Sequence[Verdict]
    ) -> None:
        for verdict in verdicts:
            self._add(domain, host, verdict, connection.remote_ip, connection.local_ip)

    def _add(self, domain: str, host: str, verdict: Verdict, remote_ip: str = "", local_ip: str = "") -> None:
        check, fault = verdict.check, verdict.fault
        self.tls_results.append(
            TlsResult(
                recipient_domain=domain,
                policy_type=check.type,
                policy_domain=check.domain,
                mx_host=host,
                remote_ip=remote_ip,
                local_ip=local_ip,
                result="" if fault is None else fault.type,
                detail="" if fault is None else fault.text,
                policy=check.strings,
                mx=check.mx,
            )
        )

    def attach(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes with what was recorded; results of TLS are counted once."""
        first, *others = outcomes
        return [
            replace(first, dialed=self.dialed, tls_results=tuple(self.tls_results)),
            *(replace(outcome, dialed=self.dialed) for outcome in others),
        ]


@dataclass(slots=True)
class MxServer:
    """A Server (see `handover`). `settings` are for opportunistic TLS."""

    transport: str  # its name
    domain: str  # the recipients'
    target: Host
    address: IpAddress
    port: int
    require_tls: bool  # the server has to offer REQUIRETLS
    settings: ClientSettings
    dial: Dial
    connections: Connections
    shaper: Shaper
    clock: Clock
    record: Record
    unusable: bool = False  # no connection could be had, and the server did not say why
    lacks_require_tls: bool = False
    ip: str = field(init=False)  # the address as text

    def __post_init__(self) -> None:
        self.ip = str(self.address)

    @property
    def host(self) -> str:
        return self.target.name

    @property
    def key(self) -> Hashable:
        return connection_key(self.settings.hello_name, self.target, self.address)

    async def share(self) -> Share:
        hop = NextHop(self.domain, self.host, self.ip, self.port, self.transport)
        return await self.shaper.share(hop)

    async def connection(self, share: Share, *, new: bool = False) -> Kept:
        kept = await self.connections.get(self.key, share, self._open, self._suits, new=new)
        self._note_address()
        failure = kept.failure
        self.unusable = failure is not None and failure.reply is None
        return kept

    def give_back(self, kept: Kept) -> None:
        self.connections.give_back(kept)

    def is_ours(self, answer: results.Result) -> bool:
        return False  # no login is ever made

    def error(self, answer: results.Result) -> str:
        text = error_text(answer)
        return f"{self.host}: {text}" if answer.reply is None and answer.fate is Fate.BROKEN else text

    # --- Opening ---

    def _note_address(self) -> None:
        addresses = self.record.dialed.setdefault(self.host, [])
        if self.ip not in addresses:
            addresses.append(self.ip)

    async def _open(self, place: Place) -> Kept:
        self._note_address()
        self.record.dials += 1
        need = self.target.tls
        opened = trio.current_time()
        connection = await self._connect(TlsPolicy.REQUIRED if need.required else TlsPolicy.OPPORTUNISTIC)
        failure = connection.failure
        if failure is not None and failure.stage == "starttls" and failure.reply is None:
            fault = connection.tls_fault or TlsFault("starttls-not-supported", failure.text)
            self._note(connection, without_tls(need, fault))
            if need.required:
                return Kept(connection, self.key, opened, place, refused=_refusal(failure.text))
            # Whoever takes part in the handshake could as well have hidden STARTTLS: nothing is lost.
            connection = await self._connect(TlsPolicy.NONE)
            return Kept(connection, self.key, opened, place)
        tls = connection.tls
        if tls is None and failure is not None:
            return Kept(connection, self.key, opened, place)  # it did not come as far as TLS
        try:
            verdicts = self._verdicts(tls)
            self._note(connection, verdicts)
            kept = Kept(connection, self.key, opened, place, tls_used=_tls_used(tls, verdicts))
            kept.verdicts[need] = verdicts
            if failure is None:
                kept.refused = self._refused(connection, verdicts)
        except BaseException:
            await connection.aclose()
            raise
        return kept

    async def _connect(self, policy: TlsPolicy) -> SmtpConnection:
        return await connect_smtp(
            self.ip,
            self.port,
            replace(self.settings, tls=policy),
            server_name=self.target.tls.server_name,
            dial=self.dial,
        )

    def _verdicts(self, tls: TlsStream | None) -> tuple[Verdict, ...]:
        return without_tls(self.target.tls) if tls is None else with_tls(self.target.tls, tls, self._now())

    def _verdicts_on(self, kept: Kept) -> Sequence[Verdict]:
        """Found once: a hostile host's certificate takes up to 28 ms, and many connections may be kept."""
        need = self.target.tls
        verdicts = kept.verdicts.get(need)
        if verdicts is None:
            if len(kept.verdicts) >= MAX_VERDICTS:
                kept.verdicts.clear()
            verdicts = kept.verdicts[need] = self._verdicts(kept.connection.tls)
        return verdicts

    def _now(self) -> datetime:
        return self.clock.now()

    def _note(self, connection: SmtpConnection, verdicts: Sequence[Verdict]) -> None:
        self.record.verdicts(self.domain, self.host, connection, verdicts)

    def _refused(self, connection: SmtpConnection, verdicts: Sequence[Verdict]) -> results.Result | None:
        for verdict in verdicts:
            if verdict.refuses and verdict.fault is not None:
                return _refusal(f"refused by {_POLICIES[verdict.check.type]}: {verdict.fault.text}")
        if self.require_tls and "REQUIRETLS" not in connection.capabilities:
            self.lacks_require_tls = True
            return _refusal(NO_REQUIRETLS, "4.7.30")
        return None

    def _suits(self, kept: Kept) -> bool:
        """Whether a connection that was opened for another message, perhaps of another domain, will do."""
        tls = kept.connection.tls
        if tls is None and self.target.tls.required:
            return False
        verdicts = self._verdicts_on(kept)
        if self._refused(kept.connection, verdicts) is not None:
            self.lacks_require_tls = False  # another one may offer it
            return False
        kept.tls_used = _tls_used(tls, verdicts)
        return True


def connection_key(hello_name: str, host: Host, address: IpAddress) -> Hashable:
    """What connections are kept by, so that all domains of one provider share them."""
    return hello_name, host.name, address


def _refusal(text: str, enhanced: str = "4.7.5") -> results.Result:
    return results.Result(Fate.BROKEN, "starttls", text, enhanced=enhanced)


def _tls_used(tls: TlsStream | None, verdicts: Sequence[Verdict]) -> str:
    """The version, and what the server was verified by."""
    if tls is None:
        return ""
    passed = [
        _POLICIES[one.check.type] for one in verdicts if one.fault is None and one.check.type in _POLICIES
    ]
    return f"{tls.version}, " + (f"verified by {' and '.join(passed)}" if passed else "not verified")
