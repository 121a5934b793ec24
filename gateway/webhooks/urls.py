"""An account's webhook URLs: which there are and how they fare; enable one again; try one."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.clock import Clock
from gateway.config.accounts import AccountSettings
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.model import WebhookCall
from gateway.store import webhook_urls
from gateway.store.store import Store
from gateway.store.webhook_urls import UrlState
from gateway.webhooks.calling import Caller, NoPayload, unsent
from gateway.webhooks.client import Answer
from gateway.webhooks.examples import example_event

TEST_TIMEOUT = 30.0  # seconds


class UnknownUrl(GatewayError):
    """The account has no such URL, or there is no such account; the text says which."""


class TestUnderWay(GatewayError):
    """A test call of the account has no answer yet. They wait in no queue, so there is one at a time."""

    __test__ = False  # of pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlReport:
    """A URL as it is configured, and as it fares."""

    account: str
    url: str
    events: tuple[str, ...]  # "incoming" among them
    format: str
    signed: bool
    state: UrlState | None  # None: its last call succeeded, or there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A test call: what was sent, and what became of it."""

    url: str
    event: str
    content_type: str
    payload: bytes  # empty if it was not made
    answer: Answer


class WebhookUrls:
    """All methods raise StoreError, and UnknownUrl for an account or a URL that is not configured."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, caller: Caller) -> None:
        self._settings, self._store, self._clock, self._caller = settings, store, clock, caller
        self._testing: set[str] = set()  # accounts

    async def list(self, account: str = "") -> tuple[UrlReport, ...]:
        """An account's URLs, or everybody's, as they are configured."""
        names = [account] if account else [*self._settings.accounts]
        states = await self._store.read(lambda conn: webhook_urls.failing(conn, account))
        by_url = {(state.account, state.url): state for state in states}
        return tuple(
            UrlReport(
                account=name,
                url=target.url,
                events=events,
                format=target.format,
                signed=bool(target.secrets),
                state=by_url.get((name, target.url)),
            )
            for name in names
            for target, events in self._account(name).all_webhook_targets()
        )

    async def enable(self, url: str, account: str = "") -> tuple[str, ...]:
        """Calls to the URL are made again, of an account or of all; those for which it was disabled."""
        if account:
            self._account(account)  # the URL itself may be configured no more
        return await self._store.write(lambda conn: webhook_urls.enable(conn, url, account))

    async def test(self, account: str, url: str = "", event: str = "") -> Trial:
        """Call a URL with an example of an event: by default the account's first URL, and its first event.

        Nothing of it is stored, and a URL that is disabled is called too. Somebody waits for the answer:
        it has less time than a call of the queue. Raises TestUnderWay.
        """
        if account in self._testing:
            raise TestUnderWay(
                f"a test call of account {account!r} is under way, for {TEST_TIMEOUT:.0f} s at most"
            )
        self._testing.add(account)
        try:
            return await self._test(account, url, event)
        finally:
            self._testing.remove(account)

    async def _test(self, account: str, url: str, event: str) -> Trial:
        settings = self._account(account)
        for target, events in settings.all_webhook_targets():
            if url in ("", target.url) and (not event or event in events):
                break
        else:
            what = " ".join(filter(None, [url and f"the URL {url}", event and f"for the event {event!r}"]))
            raise UnknownUrl(
                f"account {account!r} does not have {what or 'a URL'}; gateway webhook urls lists what it has"
            )
        event, now = event or events[0], self._clock.now()
        try:
            body = await self._caller.format(example_event(event, account, settings, now), target.format)
        except NoPayload as exc:
            return Trial(url=target.url, event=event, content_type="", payload=b"", answer=unsent(str(exc)))
        if body is None:
            answer = unsent(f"the format {target.format!r} has nothing for the event {event!r}")
            return Trial(url=target.url, event=event, content_type="", payload=b"", answer=answer)
        call = WebhookCall(
            id=0,
            account=account,
            event=event,
            url=target.url,
            format=target.format,
            attempt=1,
            time=now,
            body=body.body,
            secrets=target.secrets,
        )
        answer = await self._caller.post(call, body.content_type, target.authorization, timeout=TEST_TIMEOUT)
        return Trial(
            url=target.url, event=event, content_type=body.content_type, payload=body.body, answer=answer
        )

    def _account(self, name: str) -> AccountSettings:
        found = self._settings.accounts.get(name)
        if found is None:
            raise UnknownUrl(f"there is no account {name!r}")
        return found
