"""The kit's suites, passed by the plugins that come with the gateway, and failed by those that are wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import pytest
import trio

from gateway import AutomaticReply, Delivery, Outcome, ReportSource, Transport, hookimpl
from gateway.hookspecs.additions import ContentStore
from gateway.outbound.transports import make_transports, read_transports
from gateway.store.content_files import FileStore
from gateway.testing import FakeTransport, scripted_mx, temporary
from gateway.testing.conformance import ContentStoreSuite, ReportReaderSuite, TransportSuite
from gateway_smtp.smtp import Smtp
from tests.networks import a_network
from tests.plugins.report_formats import FORMATS
from tests.plugins.test_reports import AUTOMATIC, arf, sns

TYPES = Smtp().transports()


def smtp(port: int) -> Transport:
    settings = {"relay": {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none"}}
    return make_transports(read_transports(settings, TYPES, Path.cwd()), a_network())["relay"]


class TestSmtp(TransportSuite):
    @asynccontextmanager
    async def accepting(self) -> AsyncIterator[Transport]:
        async with scripted_mx() as mx:
            yield smtp(mx.port)

    @asynccontextmanager
    async def failing(self) -> AsyncIterator[Transport]:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await listener.aclose()  # nobody is there any more
        yield smtp(port)


class TestFake(TransportSuite):
    def accepting(self) -> AbstractAsyncContextManager[Transport]:
        return nullcontext(FakeTransport("fake"))

    def failing(self) -> AbstractAsyncContextManager[Transport]:
        fake = FakeTransport("fake")
        fake.answer(temporary())
        return nullcontext(fake)


class TestFileStore(ContentStoreSuite):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "content"
        self.directory.mkdir()

    def store(self) -> AbstractAsyncContextManager[ContentStore]:
        return nullcontext(FileStore(self.directory))

    def failing(self) -> AbstractAsyncContextManager[ContentStore]:
        return nullcontext(FileStore(self.directory / "missing"))


# --- Report readers -------------------------------------------------------------------------------


class OfFormats(ReportReaderSuite):
    """A built-in reader, with reports that the tests of formats have."""

    reader = ""
    formats: tuple[str, ...] = ()

    def plugin(self) -> object:
        return self.reader

    def reports(self) -> Mapping[str, bytes]:
        return {name: FORMATS[name].data for name in self.formats}


class TestRfc3464(OfFormats):
    reader = "reports.rfc3464"
    formats = ("RFC 3464, and what its fields lack", "expired, says the Status")


class TestForwarded(OfFormats):
    reader = "reports.forwarded"
    formats = ("RFC 3464, passed on by another server",)


class TestQmail(OfFormats):
    reader = "reports.qmail"
    formats = ("qmail", "qmail, in the queue too long", "postfix, before RFC 3464")


class TestExim(OfFormats):
    reader = "reports.exim"
    formats = ("exim", "exim, delayed")


class TestSendmail(OfFormats):
    reader = "reports.sendmail"
    formats = ("sendmail, without fields", "errors in brackets behind the address")


class TestExchange(OfFormats):
    reader = "reports.exchange"
    formats = ("exchange 5.5", "exchange, HTML only", "domino")


class TestText(OfFormats):
    reader = "reports.text"
    formats = ("a quota, in a list of addresses", "fields for people", "one line", "another language")


class TestArf(OfFormats):
    reader = "reports.arf"

    def reports(self) -> Mapping[str, bytes]:
        return {"a complaint": arf("Feedback-Type: abuse\nUser-Agent: Loop/1.0\nVersion: 1\n")}


class TestAutomatic(OfFormats):
    reader = "reports.automatic"

    def reports(self) -> Mapping[str, bytes]:
        away = "Return-Path: <>\r\nFrom: ada@example.net\r\n{}\r\n\r\nI am away.\r\n"
        return {
            name: away.format(header).encode() for name, header in AUTOMATIC.items() if "From" not in header
        }


class TestAmazon(OfFormats):
    reader = "reports.amazon"

    def reports(self) -> Mapping[str, bytes]:
        complaint = {"complainedRecipients": [{"emailAddress": "ada@example.net"}]}
        mail = {"source": "shop@example.org"}
        told = {"notificationType": "Complaint", "complaint": complaint, "mail": mail}
        return {"a complaint": sns(told, wrapped=False), "and wrapped": sns(told, wrapped=True)}


# --- Those that are wrong -------------------------------------------------------------------------


class Short:
    """Answers for the first message only."""

    async def deliver(self, delivery: Delivery) -> Sequence[Outcome]:
        return [temporary(error="")]


class Wrong(TransportSuite):
    def accepting(self) -> AbstractAsyncContextManager[Transport]:
        return nullcontext(Short())

    failing = accepting


async def test_a_wrong_transport_fails() -> None:
    suite = Wrong()
    with pytest.raises(AssertionError, match="is not one Outcome for each of 3 messages"):
        await suite.test_one_outcome_for_each_message(3)
    with pytest.raises(AssertionError):
        await suite.test_one_after_the_other()


class Greedy:
    """Takes everything for a report, and breaks at some of it."""

    @hookimpl
    def read_report(self, source: ReportSource) -> AutomaticReply:
        return AutomaticReply(f"a reply of {source.params['kind']}")


class WrongReader(ReportReaderSuite):
    def plugin(self) -> object:
        return Greedy()

    def reports(self) -> Mapping[str, bytes]:
        return {"a reply": b"Content-Type: text/plain; kind=machine\r\n\r\nhi\r\n"}


async def test_a_wrong_reader_fails() -> None:
    suite = WrongReader()
    await suite.test_it_reads_its_reports()
    for failing in (suite.test_a_letter_is_no_report, suite.test_a_report_that_was_cut_off_does_no_harm):
        with pytest.raises(AssertionError, match="greedy failed"):
            await failing()
