"""An API client that speaks ASGI to the application, with fakes behind it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from gateway import model
from gateway.accounts.directory import Directory
from gateway.accounts.logins import BadCredentialsError, Login, TooManyFailuresError
from gateway.config.accounts import AccountSettings, DomainSettings
from gateway.config.settings import Settings
from gateway.errors import KeyUsed, NotVisible, SubmissionRefused
from gateway.mail.address import Address
from gateway.mail.flags import changed
from gateway.model import ReceivedMessage, Rendered, Suppression, Template
from gateway.offload import Offload
from gateway.outbound.account_queue import History
from gateway.outbound.submission import KeepAnswer, NewSubmission, QueuedRecipient, Refusal, Submitted
from gateway.outbound.unsubscribe import BadLinkError, Link
from gateway.store.call_listing import CallFilter
from gateway.store.listing import Filter, Page
from gateway.store.mailbox_listing import ListedMessage, MessageFilter
from gateway.store.templates import StoredTemplate
from gateway.store.webhook_urls import UrlState
from gateway.web.api.services import KeptAnswer, Services
from gateway.web.app import WebApp
from gateway.webhooks.client import Answer as WebhookAnswer
from gateway.webhooks.event_log import EventPage, LoggedEvent
from gateway.webhooks.urls import Trial, UnknownUrl, UrlReport

NOW = datetime(2026, 2, 1, 12, 0, 0, tzinfo=UTC)
BASE = "/webapi/v0/"
FORMS = ("urlencoded", "multipart", "json")
GONE = "https://a.example/"  # a URL for webhooks
Event = dict[str, Any]


class FakeAccounts:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.asked: list[tuple[str, str, str]] = []
        self.too_many = False

    async def authenticate(self, login: str, password: str, remote_ip: str) -> Login:
        self.asked.append((login, password, remote_ip))
        if self.too_many:
            raise TooManyFailuresError(17)
        address = Address.parse(login)
        account = Directory(self._settings).owner(address)
        if account is None or password != "secret":
            raise BadCredentialsError("no such login, or another password")
        return Login(account, address, self._settings.accounts[account])

    async def authenticate_key(self, text: str, remote_ip: str) -> Login:
        """A key is "key:" and its scopes."""
        self.asked.append(("", text, remote_ip))
        name, _, scopes = text.partition(":")
        if name != "key":
            raise BadCredentialsError("no such API key")
        ann = self._settings.accounts["ann"]
        return Login("ann", ann.addresses[0], ann, "shop", frozenset(scopes.split(",")))


class FakeSubmitter:
    """Refuses what is sent to localpart "refused"; has no room for sent copies when `full`."""

    def __init__(self) -> None:
        self.submitted: list[NewSubmission] = []
        self.error: Exception | None = None
        self.full = False
        self.kept: dict[tuple[str, str], KeptAnswer] = {}

    async def submit_together(
        self, copies: Sequence[NewSubmission], keep: KeepAnswer | None = None
    ) -> Submitted:
        [result] = await self.submit_each([copies], keep)
        if not isinstance(result, Submitted):
            raise result
        return result

    async def submit_each(
        self, batch: Sequence[Sequence[NewSubmission]], keep: KeepAnswer | None = None
    ) -> tuple[Submitted | Refusal, ...]:
        if self.error is not None:
            raise self.error
        results = tuple(map(self._submit, batch))
        answer = None if keep is None else keep.answer(results)
        if keep is not None and answer is not None:
            account = batch[0][0].account
            if (account, keep.key) in self.kept:
                raise KeyUsed
            self.kept[account, keep.key] = KeptAnswer(keep.digest, json.loads(json.dumps(answer)))
        return results

    async def kept_answer(self, account: str, key: str) -> KeptAnswer | None:
        return self.kept.get((account, key))

    def _submit(self, copies: Sequence[NewSubmission]) -> Submitted | Refusal:
        recipients = [recipient for new in copies for recipient in new.recipients]
        if any(recipient.localpart == "refused" for recipient in recipients):
            return SubmissionRefused("messageLimitReached", "too many")
        self.submitted += copies
        return Submitted(
            tuple(QueuedRecipient(r, 100 + i, f"fromid{i}") for i, r in enumerate(recipients)),
            over_quota=self.full and any(new.sent_copy is not None for new in copies),
        )


@dataclass
class FakeContent:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), 65536):
            yield self.data[start : start + 65536]

    async def read(self) -> bytes:
        return self.data


class FakeMessages:
    def __init__(self) -> None:
        self.stored: dict[tuple[str, int], tuple[ReceivedMessage, FakeContent]] = {}
        self.error: Exception | None = None
        self.wanted: MessageFilter | None = None

    async def get(self, account: str, msg_id: int) -> tuple[ReceivedMessage, FakeContent]:
        if self.error is not None:
            raise self.error
        if (account, msg_id) not in self.stored:
            raise NotVisible
        return self.stored[account, msg_id]

    async def delete(self, account: str, msg_id: int) -> None:
        await self.get(account, msg_id)
        del self.stored[account, msg_id]

    async def change_flags(
        self,
        account: str,
        msg_id: int,
        *,
        add: frozenset[str] = frozenset(),
        remove: frozenset[str] = frozenset(),
    ) -> None:
        message, content = await self.get(account, msg_id)
        self.stored[account, msg_id] = replace(message, flags=changed(message.flags, add, remove)), content

    async def move(self, account: str, msg_id: int, mailbox: str) -> bool:
        message, content = await self.get(account, msg_id)
        if mailbox not in ("Inbox", "Archive"):
            return False
        self.stored[account, msg_id] = replace(message, mailbox=mailbox), content
        return True

    async def page(
        self, account: str, wanted: MessageFilter, *, cursor: str, maximum: int
    ) -> tuple[tuple[ListedMessage, ...], str] | None:
        """What is stored, oldest first; a cursor is how many came before."""
        if self.error is not None:
            raise self.error
        self.wanted = wanted
        if wanted.mailbox not in ("", "Inbox"):
            return None
        mine = [message for (owner, _), (message, _) in self.stored.items() if owner == account]
        end = int(cursor or "0") + maximum
        page = tuple(ListedMessage(message, f"<{message.id}>", "About") for message in mine)
        return page[end - maximum : end], str(end) if end < len(mine) else ""


class FakeWebhooks:
    """Answers with how many conditions it was given."""

    wanted: CallFilter | None = None

    async def replay(self, wanted: CallFilter) -> int:
        self.wanted = wanted
        return sum(value not in (None, "") for value in astuple(wanted))


class FakeWebhookUrls:
    """Ann has a URL that is disabled and one that works. A test is as its caller wants it."""

    def __init__(self) -> None:
        gone = UrlState(
            account="ann",
            url=GONE,
            failing_since=NOW,
            last_failure=NOW,
            error="its receiver wants no more",
            disabled=NOW,
        )
        report = partial(UrlReport, account="ann", format="mox", signed=False)
        self.reports = (
            report(url=GONE, events=("delivered", "failed"), state=gone),
            report(url="https://b.example/", events=("incoming",), state=None),
        )
        self.enabled: list[tuple[str, str]] = []
        self.tested: list[tuple[str, str, str]] = []

    async def list(self, account: str) -> Sequence[UrlReport]:
        return self.reports if account == "ann" else ()

    async def enable(self, url: str, account: str) -> Sequence[str]:
        self.enabled.append((url, account))
        return [account] if url == GONE else []

    async def test(self, account: str, url: str, event: str) -> Trial:
        self.tested.append((account, url, event))
        if url and url not in [report.url for report in self.reports]:
            raise UnknownUrl("account 'ann' does not have it")
        answer = WebhookAnswer(success=False, code=410, error="status 410", response="gone", duration=0.5)
        return Trial(
            url=url or GONE, event=event or "failed", content_type="text/plain", payload=b"{}", answer=answer
        )


class FakeSuppressions:
    """The whole address is its base address; pages are of two entries."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Suppression] = {}

    async def page(self, account: str, cursor: str, maximum: int) -> tuple[tuple[Suppression, ...], str]:
        mine = sorted(base for owner, base in self.entries if owner == account and base > cursor)
        shown = mine[: min(maximum, 2)]
        found = tuple(self.entries[account, base] for base in shown)
        return found, shown[-1] if len(mine) > len(shown) else ""

    async def lookup(self, account: str, address: Address, list_name: str = "") -> Suppression | None:
        base = str(address)
        return self.entries.get((account, base)) or self.entries.get((account, f"{base} {list_name}"))

    async def add(
        self, account: str, address: Address, *, manual: bool, reason: str, list_name: str = ""
    ) -> bool:
        if await self.lookup(account, address, list_name) is not None:
            return False
        self.entries[account, f"{address} {list_name}".rstrip()] = Suppression(
            id=len(self.entries) + 1,
            created=NOW,
            account=account,
            base_address=str(address),
            original_address=str(address),
            manual=manual,
            reason=reason,
            expires=None,
            list_name=list_name,
        )
        return True

    async def remove(self, account: str, address: Address, list_name: str = "") -> bool:
        return self.entries.pop((account, f"{address} {list_name}".rstrip()), None) is not None


class FakeTemplates:
    """The engine fills "{}" with the whole of the variables, and knows no variable "bad"."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Template] = {}

    async def put(self, account: str, template: Template) -> None:
        if not template.text and not template.html:
            raise SubmissionRefused("missingBody", "a template needs Text or HTML")
        self.stored[account, template.name] = template

    async def page(self, account: str, cursor: str, maximum: int) -> tuple[tuple[StoredTemplate, ...], str]:
        names = sorted(name for owner, name in self.stored if owner == account and name > cursor)
        found = tuple(StoredTemplate(self.stored[account, name], NOW) for name in names[:maximum])
        return found, names[maximum - 1] if len(names) > maximum else ""

    async def remove(self, account: str, name: str) -> bool:
        return self.stored.pop((account, name), None) is not None

    async def render(
        self, account: str, name: str, variables: Sequence[Mapping[str, Any]]
    ) -> Sequence[Rendered]:
        template = self.stored.get((account, name))
        if template is None:
            raise SubmissionRefused("user", f"Template: there is no template {name!r} in your account")
        if any("bad" in given for given in variables):
            raise SubmissionRefused("user", f"template {name!r}, Text, line 1: bad")

        def fill(part: str, given: Mapping[str, Any]) -> str:
            return part.replace("{}", json.dumps(given, sort_keys=True))

        return [
            Rendered(
                subject=fill(template.subject, given),
                text=fill(template.text, given),
                html=fill(template.html, given),
            )
            for given in variables
        ]


class FakeUnsubscriber:
    """A token is the recipient's address."""

    def __init__(self, settings: Settings) -> None:
        self._base = settings.web.base_url
        self.asked: list[Link] = []
        self.error: Exception | None = None

    async def url(self, link: Link) -> str:
        return f"{self._base}unsubscribe/{link.list_name}-{link.recipient}" if self._base else ""

    async def read(self, token: str) -> Link:
        list_name, dash, recipient = token.partition("-")
        if not dash:
            raise BadLinkError("this link is not valid")
        return Link("ann", list_name, Address.parse(recipient), "<m@example.org>")

    async def unsubscribe(self, link: Link) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append(link)


class FakeQueue:
    """Remembers what it was asked, and answers what it was given."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Filter, dict[str, Any]]] = []
        self.answer = Page((), "")
        self.history: dict[tuple[str, int], History] = {}

    async def page(self, account: str, wanted: Filter, **how: Any) -> Page:
        if how["cursor"] == "wrong":
            raise ValueError("cursor 'wrong' is none that a page ended with")
        self.asked.append(("page", account, wanted, how))
        return self.answer

    async def get(self, account: str, message_id: int) -> History | None:
        return self.history.get((account, message_id))

    async def hold(self, account: str, wanted: Filter) -> int:
        self.asked.append(("hold", account, wanted, {}))
        return 1

    async def release(self, account: str, wanted: Filter) -> int:
        self.asked.append(("release", account, wanted, {}))
        return 2

    async def cancel(self, account: str, wanted: Filter) -> int:
        self.asked.append(("cancel", account, wanted, {}))
        return 3


class FakeEvents:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int, Sequence[str]]] = []
        self.error: Exception | None = None

    async def page(
        self, account: str, *, cursor: str = "", maximum: int = 100, names: Sequence[str] = ()
    ) -> EventPage:
        if self.error is not None:
            raise self.error
        self.asked.append((account, cursor, maximum, names))
        return EventPage((LoggedEvent(1, {"Event": "delivered"}),), "after", more=False)

    @property
    def changed(self) -> trio.Event:
        return trio.Event()

    async def newest(self) -> str:
        return "newest"

    def check_cursor(self, cursor: str) -> None:
        if cursor == "wrong":
            raise ValueError("cursor 'wrong' is none that a page ended with")

    async def payload(self, event: model.Event) -> Any:
        return None if event.name == "relayed" else {"Event": event.name}


class FixedClock:
    def now(self) -> datetime:
        return NOW


class HereOffload(Offload):
    """Runs at once, and counts."""

    def __init__(self) -> None:
        super().__init__(limit=1.0)
        self.runs: list[str] = []

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.runs.append(function.__name__)
        return function(*args, **kwargs)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    events_read: int = 0

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        """Code and message of a 400."""
        assert self.status == 400, (self.status, self.body)
        assert set(self.json) == {"Code", "Message"}
        return self.json["Code"], self.json["Message"]


@dataclass
class ApiClient:
    app: WebApp
    accounts: FakeAccounts
    submitter: FakeSubmitter
    messages: FakeMessages
    suppressions: FakeSuppressions
    templates: FakeTemplates
    unsubscriber: FakeUnsubscriber
    offload: HereOffload
    settings: Settings
    webhooks: FakeWebhooks
    webhook_urls: FakeWebhookUrls
    queue: FakeQueue
    events: FakeEvents
    login: str = "ann@example.org"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def last(self) -> NewSubmission:
        return self.submitter.submitted[-1]

    async def asgi(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        pieces: Iterable[bytes] = (b"",),
        *,
        gone: bool = False,
    ) -> Answer:
        """One request, in `pieces` of body; a piece is only made when the application asks for it.

        `gone`: the client then closes the connection, however much its Content-Length promised."""
        raw = [
            (k.lower().encode(), v.encode("latin-1"))
            for k, v in ({"Host": "localhost"} | dict(headers)).items()
        ]
        scope: Event = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": raw,
            "client": ("192.0.2.1", 12345),
            "server": ("localhost", 80),
        }
        source, sent, read = iter(pieces), list[Event](), 0
        upcoming = next(source, None)

        async def receive() -> Event:
            nonlocal upcoming, read
            if upcoming is None:
                # As of a server: after the body there is nothing to receive until the client goes.
                if not gone:
                    await trio.sleep_forever()
                return {"type": "http.disconnect"}
            body, upcoming = upcoming, next(source, None)
            read += 1
            return {"type": "http.request", "body": body, "more_body": upcoming is not None}

        async def send(event: Event) -> None:
            sent.append(event)

        await self.app(scope, receive, send)
        assert sent, "no answer"
        assert [e["type"] for e in sent] == ["http.response.start"] + ["http.response.body"] * (len(sent) - 1)
        answer = Answer(
            sent[0]["status"],
            {k.decode().lower(): v.decode("latin-1") for k, v in sent[0]["headers"]},
            b"".join(e.get("body", b"") for e in sent[1:]),
            read,
        )
        if "content-length" in answer.headers:
            assert len(answer.body) == int(answer.headers["content-length"])
        return answer

    def authorization(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{self.login}:secret".encode()).decode()}

    async def raw(
        self, method: str, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A POST with this body as it is."""
        all_headers = {
            **self.authorization(),
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        pieces = [body[i : i + 65536] for i in range(0, len(body), 65536)] or [b""]
        return await self.asgi("POST", BASE + method, all_headers, pieces)

    async def text(self, method: str, request: str, form: str = "json", **kwargs: Any) -> Answer:
        """A call with the request's JSON as it is, in one of FORMS."""
        content_type, body = encode(form, request.encode("utf-8", "surrogatepass"), kwargs.pop("files", ()))
        return await self.raw(method, content_type, body, **kwargs)

    async def call(self, method: str, request: Any, form: str = "json", **kwargs: Any) -> Answer:
        return await self.text(method, json.dumps(request), form, **kwargs)

    async def send(
        self,
        form: str = "json",
        files: Iterable[tuple[str, bytes]] = (),
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """A Send that is right but for `fields`."""
        request = {"To": [{"Address": "bob@example.com"}], "Subject": "Hi", "Text": "Hello\n"} | fields
        return await self.call("Send", request, form, files=files, headers=headers)


def encode(form: str, request: bytes, files: Iterable[tuple[str, bytes]] = ()) -> tuple[str, bytes]:
    """A body and its content type; `files` are part headers and content."""
    match form:
        case "json":
            return "application/json", request
        case "urlencoded":
            return "application/x-www-form-urlencoded", urlencode({"request": request}).encode()
        case _:
            parts = [('Content-Disposition: form-data; name="request"', request), *files]
            body = b"".join(
                b"--bOUnd\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
            )
            return 'multipart/form-data; boundary="bOUnd"', body + b"--bOUnd--\r\n"


def make_client(**sections: Any) -> ApiClient:
    settings = Settings(
        hostname="mail.example.org",
        domains={
            "example.org": DomainSettings(catchall_separator=("+",)),
            "off.example": DomainSettings(disabled=True),
        },
        accounts={
            "ann": AccountSettings(
                addresses=(Address.parse("ann@example.org"), Address.parse("ann@off.example")),
                full_name="Ann Ó Dea",
            ),
            "bea": AccountSettings(addresses=(Address.parse("bea@example.org"),)),
        },
        **sections,
    )
    accounts, submitter, messages, suppressions, templates, unsubscriber, offload = (
        FakeAccounts(settings),
        FakeSubmitter(),
        FakeMessages(),
        FakeSuppressions(),
        FakeTemplates(),
        FakeUnsubscriber(settings),
        HereOffload(),
    )
    webhooks, webhook_urls = FakeWebhooks(), FakeWebhookUrls()
    queue, events = FakeQueue(), FakeEvents()
    services = Services(
        settings=settings,
        accounts=accounts,
        directory=Directory(settings),
        submitter=submitter,
        messages=messages,
        suppressions=suppressions,
        templates=templates,
        unsubscriber=unsubscriber,
        webhooks=webhooks,
        webhook_urls=webhook_urls,
        queue=queue,
        events=events,
        clock=FixedClock(),
        offload=offload,
    )
    return ApiClient(
        WebApp(services),
        accounts,
        submitter,
        messages,
        suppressions,
        templates,
        unsubscriber,
        offload,
        settings,
        webhooks,
        webhook_urls,
        queue,
        events,
    )


@pytest.fixture
def api() -> ApiClient:
    return make_client()


@pytest.fixture
def make_api() -> Callable[..., ApiClient]:
    """Makes a client with other sections of the settings."""
    return make_client


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)
