"""The client's logins against scripted servers: which mechanism, what is final, and what is never shown."""

import hmac
from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp.client import AskForTls, SmtpClient
from gateway.smtp.client_auth import ChannelBinding, Credentials
from gateway.smtp.events import Failed, LoginStep, NeedData, Ready
from gateway.smtp.results import Fate
from gateway.smtp.scram import ScramServer, derive
from tests.smtp.helpers import CHUNKINGS

PASSWORD = "correct horse"
ME = Credentials("me", PASSWORD)
EXPORTER = ChannelBinding("tls-exporter", b"e" * 32)
END_POINT = ChannelBinding("tls-server-end-point", b"p" * 32)
ALL = "SCRAM-SHA-1 PLAIN CRAM-MD5 SCRAM-SHA-256 SCRAM-SHA-1-PLUS LOGIN SCRAM-SHA-256-PLUS"


class Talk:
    """A client that logs in within TLS, and what a script says to it."""

    def __init__(
        self,
        mechanisms: str,
        credentials: Credentials = ME,
        binding: ChannelBinding | None = EXPORTER,
        *,
        tls: bool = True,
    ) -> None:
        self.client = SmtpClient("client.example", credentials=credentials)
        if tls:
            self.client.tls_started(binding)
        self.said: list[str] = []  # by the client
        self.events: list[object] = []
        self.say("220 mx", f"250-mx\r\n250 AUTH {mechanisms}" if mechanisms else "250 mx")

    def say(self, *replies: str) -> None:
        for reply in replies:
            for chunk in Talk.chunking(f"{reply}\r\n".encode()):
                self.client.receive_data(chunk)
            while not isinstance(event := self.client.next_event(), NeedData):
                if isinstance(event, LoginStep):
                    self.client.answer_challenge(event.answer())
                else:
                    self.events.append(event)
            self.said += self.client.data_to_send().decode().splitlines()

    def challenge(self, data: bytes) -> None:
        self.say(f"334 {b64encode(data).decode()}")

    @property
    def response(self) -> bytes:
        """The last one, also when it came with AUTH."""
        return b64decode(self.said[-1].rpartition(" ")[2])

    @property
    def failure(self) -> str:
        [failed] = self.events
        assert isinstance(failed, Failed)
        assert (failed.result.fate, failed.result.stage, failed.result.code) == (Fate.BROKEN, "auth", None)
        assert not failed.result.permanent
        assert self.client.closed
        return failed.result.text

    def check_nothing_is_shown(self) -> None:
        shown = self.client.transcript + repr(self.events) + repr(self.client.failure)
        assert PASSWORD not in shown
        assert b64encode(PASSWORD.encode()).decode() not in shown
        for line in self.said:
            word = line.rpartition(" ")[2]
            if len(word) > 12 and word not in ALL and word != "client.example":
                assert word not in shown

    chunking = staticmethod(CHUNKINGS[0])


@pytest.fixture(autouse=True, params=CHUNKINGS)
def _chunking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with replies given whole and byte by byte."""
    monkeypatch.setattr(Talk, "chunking", staticmethod(request.param))


def scram(talk: Talk, server: ScramServer, digest: str = "sha256", password: str = PASSWORD) -> bytes | None:
    """Play the server up to its last word, which is answered; None when the proof is wrong."""
    assert server.read_first(talk.response) == "me"
    talk.challenge(server.first(derive(password, b"salt", 2, digest)))
    last = server.read_final(talk.response)
    if last is not None:
        talk.challenge(last)
    return last


@pytest.mark.parametrize(
    ("offered", "binding", "chosen", "plus", "digest"),
    [
        (ALL, EXPORTER, "SCRAM-SHA-256-PLUS", True, "sha256"),
        (ALL, None, "SCRAM-SHA-256", False, "sha256"),
        ("scram-sha-256", EXPORTER, "SCRAM-SHA-256", False, "sha256"),
        ("SCRAM-SHA-1-PLUS SCRAM-SHA-1 CRAM-MD5", EXPORTER, "SCRAM-SHA-1-PLUS", True, "sha1"),
        ("SCRAM-SHA-1-PLUS SCRAM-SHA-1 CRAM-MD5", None, "SCRAM-SHA-1", False, "sha1"),
    ],
)
def test_scram(offered: str, binding: ChannelBinding | None, chosen: str, plus: bool, digest: str) -> None:
    talk = Talk(offered, binding=binding)
    assert talk.said[-1].startswith(f"AUTH {chosen} ")
    if "PLUS" not in offered:  # we could have bound it, and say so
        assert talk.response.startswith(b"y,,")
        bound = None
    else:
        bound = binding.data if binding and plus else None
    assert scram(talk, ScramServer(bound, plus=plus, digest=digest), digest)
    assert talk.said[-1] == ""
    talk.say("235 2.7.0 welcome")
    [ready] = talk.events
    assert isinstance(ready, Ready)
    assert ready.capabilities.mechanisms == tuple(offered.upper().split())
    talk.check_nothing_is_shown()
    assert talk.client.transcript.splitlines()[-6:] == [
        f"> AUTH {chosen} (response)",
        "< 334 (challenge)",
        "> (response)",
        "< 334 (challenge)",
        "> (response)",
        "< 235 2.7.0 welcome",
    ]


def test_binding_to_the_certificate() -> None:
    talk = Talk(ALL, binding=END_POINT)
    assert talk.response.startswith(b"p=tls-server-end-point,,")
    nonce = talk.response.rpartition(b"r=")[2].decode()
    talk.challenge(f"r={nonce}x,s={b64encode(b'salt').decode()},i=2".encode())
    channel = talk.response.split(b",")[0].removeprefix(b"c=")
    assert b64decode(channel) == b"p=tls-server-end-point,," + END_POINT.data


def test_cram_md5() -> None:
    talk = Talk("PLAIN CRAM-MD5")
    assert talk.said[-1] == "AUTH CRAM-MD5"
    talk.challenge(b"<1896.697170952@mx>")
    digest = hmac.digest(PASSWORD.encode(), b"<1896.697170952@mx>", "md5").hex()
    assert talk.response == f"me {digest}".encode()
    talk.say("235 ok")
    assert isinstance(talk.events[0], Ready)
    talk.check_nothing_is_shown()


def test_plain_only_by_request() -> None:
    talk = Talk("PLAIN LOGIN")
    assert talk.said[-1] == "EHLO client.example"
    assert talk.failure == "login failed: the server offers PLAIN, LOGIN, and PLAIN is not allowed"
    talk = Talk("PLAIN LOGIN", Credentials("me", PASSWORD, plain=True))
    assert talk.said[-1].startswith("AUTH PLAIN ")
    assert talk.response == f"\0me\0{PASSWORD}".encode()
    talk.say("235 ok")
    assert isinstance(talk.events[0], Ready)
    talk.check_nothing_is_shown()


def test_plain_is_the_last_choice() -> None:
    talk = Talk("PLAIN CRAM-MD5", Credentials("me", PASSWORD, plain=True))
    assert talk.said[-1] == "AUTH CRAM-MD5"


@pytest.mark.parametrize("offered", ["", "LOGIN", "XOAUTH2 " + "X" * 500])
def test_nothing_to_log_in_with(offered: str) -> None:
    talk = Talk(offered)
    assert ("does not offer AUTH" in talk.failure) == (not offered)
    assert ("none of them can be used" in talk.failure) == bool(offered)
    assert len(talk.failure) < 200


def test_no_login_without_tls() -> None:
    talk = Talk(ALL, tls=False)
    assert talk.failure == "no login without TLS"
    assert talk.said == ["EHLO client.example"]
    talk = Talk(ALL, Credentials("me", PASSWORD, without_tls=True), tls=False)
    assert talk.said[-1].startswith("AUTH SCRAM-SHA-256 ")
    talk = Talk("PLAIN", Credentials("me", PASSWORD, without_tls=True), tls=False)
    assert "PLAIN is not allowed" in talk.failure


def test_what_was_offered_before_tls_does_not_count() -> None:
    client = SmtpClient("client.example", AskForTls.REQUIRED, Credentials("me", PASSWORD, plain=True))
    client.receive_data(b"220 mx\r\n250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n220 go\r\n")
    client.next_event()
    assert client.data_to_send() == b"EHLO client.example\r\nSTARTTLS\r\n"
    client.tls_started(EXPORTER)
    client.receive_data(b"250-mx\r\n250 AUTH SCRAM-SHA-256-PLUS\r\n")
    said = client.data_to_send().decode().splitlines()
    assert said[0] == "EHLO client.example"
    assert said[1].startswith("AUTH SCRAM-SHA-256-PLUS ")


@pytest.mark.parametrize("reply", ["535 5.7.8 wrong", "454 4.7.0 later", "530 what"])
def test_refused_after_the_proof_is_final(reply: str) -> None:
    talk = Talk(ALL)
    assert scram(talk, ScramServer(EXPORTER.data, plus=True), password="another") is None
    talk.say(reply)
    assert talk.failure == f"login with SCRAM-SHA-256-PLUS failed: remote answered {reply}"
    assert sum(line.startswith("AUTH") for line in talk.said) == 1
    talk.check_nothing_is_shown()


@pytest.mark.parametrize(
    "end", ["504 5.5.4 not for you", "535 5.7.8 no", "334 ZT1vdGhlci1lcnJvcg==", "334 ?"]
)
def test_refused_before_the_proof_takes_the_next_mechanism(end: str) -> None:
    talk = Talk(ALL)
    expected = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "CRAM-MD5"]
    for name in expected:
        assert talk.said[-1].partition(" ")[2].startswith(name)
        if name == "SCRAM-SHA-256":  # the server has binding, so we must not claim that it has none
            assert talk.response.startswith(b"n,,")
        if name == "CRAM-MD5":
            break
        talk.say(end)
        if end.startswith("334"):
            assert talk.said[-1] == "*"
            talk.say("501 5.0.0 ended")
    talk.say("504 no")
    assert talk.failure == "login with CRAM-MD5 failed: remote answered 504 no"


def test_a_server_that_does_not_know_the_password() -> None:
    for last, why in ((b"v=AAAA", "does not know"), (b"e=other", "refused"), (b"", "no signature")):
        talk = Talk("SCRAM-SHA-256")
        server = ScramServer(None, plus=False)
        server.read_first(b"n" + talk.response[1:])
        talk.challenge(server.first(derive(PASSWORD, b"salt", 2)))
        talk.challenge(last)
        assert talk.said[-1] == "*"
        talk.say("235 come in")  # all the same
        assert why in talk.failure


def test_a_yes_without_proof() -> None:
    talk = Talk("SCRAM-SHA-256")
    talk.say("235 come in")
    assert "did not show that it knows the password" in talk.failure


def test_endless_challenges() -> None:
    talk = Talk("SCRAM-SHA-256 CRAM-MD5")
    server = ScramServer(None, plus=False)
    server.read_first(b"n" + talk.response[1:])
    talk.challenge(server.first(derive(PASSWORD, b"salt", 2)))
    for _ in range(5):
        if not talk.events:
            talk.challenge(b"again")
    assert talk.said[-1] == "*"
    assert "login with SCRAM-SHA-256 failed" in talk.failure


def test_a_long_name_waits_for_the_challenge() -> None:
    talk = Talk("SCRAM-SHA-256", Credentials("m" * 500, PASSWORD))
    assert talk.said[-1] == "AUTH SCRAM-SHA-256"
    talk.say("334 ")
    assert talk.response.startswith(b"y,,n=" + b"m" * 500)
    assert "m" * 20 not in talk.client.transcript


@pytest.mark.parametrize("reply", ["421 4.3.2 bye", "250", "354 go", "garbage"])
def test_the_connection_ends_within_it(reply: str) -> None:
    talk = Talk("CRAM-MD5")
    talk.challenge(b"x")
    if reply == "250":
        talk.client.receive_data(b"")
        event = talk.client.next_event()
        assert isinstance(event, Failed)
        talk.events.append(event)
    else:
        talk.say(reply)
    [failed] = talk.events
    assert isinstance(failed, Failed)
    assert (failed.result.stage, failed.result.permanent) == ("auth", False)


def test_what_a_server_repeats_is_hidden() -> None:
    talk = Talk("PLAIN", Credentials("me", PASSWORD, plain=True))
    response = talk.said[-1].rpartition(" ")[2]
    talk.say(f"535 no such {response}, {PASSWORD}, {b64encode(PASSWORD.encode()).decode()}")
    assert "no such (hidden), (hidden), (hidden)" in talk.failure
    talk.check_nothing_is_shown()


@pytest.mark.parametrize(
    ("user", "password"), [("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\0b"), ("x", "\ud800")]
)
def test_credentials_that_cannot_be_sent(user: str, password: str) -> None:
    with pytest.raises(ValueError):
        Credentials(user, password)


REPLIES = st.sampled_from(
    [
        b"334 \r\n",
        b"334 cj14\r\n",  # r=x
        b"334-\r\n",
        b"334 ?\r\n",
        b"235 ok\r\n",
        b"250 AUTH PLAIN\r\n",
        b"354 go\r\n",
        b"421 bye\r\n",
        b"454 later\r\n",
        b"504 5.5.4 no\r\n",
        b"33",
        b"\xff\r\n",
    ]
)


@settings(deadline=None)
@given(st.lists(REPLIES, max_size=12), st.integers(1, 40))
def test_any_replies(replies: list[bytes], chunk: int) -> None:
    """It ends in one event at most, and nothing is shown."""
    data = f"220 mx\r\n250-mx\r\n250 AUTH {ALL}\r\n".encode() + b"".join(replies)
    client = SmtpClient(
        "client.example", credentials=Credentials("me", PASSWORD, plain=True, without_tls=True)
    )
    ends: list[object] = []
    said = b""
    for start in range(0, len(data), chunk):
        client.receive_data(data[start : start + chunk])
        while not isinstance(event := client.next_event(), NeedData):
            if isinstance(event, LoginStep):
                client.answer_challenge(event.answer())
            else:
                ends.append(event)
        said += client.data_to_send()
    assert [isinstance(event, Ready | Failed) for event in ends] in ([], [True]) or client.closed
    assert len(ends) <= 2  # a connection that was ready may fail
    shown = client.transcript + repr(ends)
    secrets = [line.rpartition(" ")[2] for line in said.decode().splitlines()[1:] if line.count(" ") != 1]
    assert not [secret for secret in [PASSWORD, *secrets] if len(secret) > 12 and secret in shown]


def test_misuse() -> None:
    assert repr(ME) == "Credentials()"
    talk = Talk("CRAM-MD5")
    with pytest.raises(RuntimeError, match="no answer to a challenge"):
        talk.client.answer_challenge(b"")
    with pytest.raises(RuntimeError, match="no TLS handshake"):
        talk.client.tls_started()
