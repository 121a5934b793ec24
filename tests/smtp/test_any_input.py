"""Whatever the peer sends, however it is cut: no machine raises, and each says the same."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp.client import SmtpClient
from gateway.smtp.commands import Auth, Mail, StartTls
from gateway.smtp.events import AuthResponse, Finished, NeedData, SendData
from gateway.smtp.server import Offer, Question
from tests.smtp.helpers import LIMITS, ServerRun, transaction

COMMANDS = st.sampled_from(
    [
        b"EHLO c\r\n",
        b"HELO c\r\n",
        b"MAIL FROM:<a@x>\r\n",
        b"RCPT TO:<b@x>\r\n",
        b"DATA\r\n",
        b"BDAT 4\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 12 last\r\n",
        b"BDAT\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"AUTH PLAIN\r\n",
        b"AGEAYg==\r\n",
        b"*\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"text",
        b"\r",
        b"\n",
        b"x" * 600,
        b"\xff\0",
    ]
)
REPLIES = st.sampled_from(
    [
        b"220 mx\r\n",
        b"250 ok\r\n",
        b"250-mx\r\n",
        b"250 PIPELINING\r\n",
        b"354 go\r\n",
        b"421 bye\r\n",
        b"450 later\r\n",
        b"550 5.1.1 no\r\n",
        b"25",
        b"\r\n",
        b"\xff",
        b"-",
    ]
)


def cut(content: bytes, places: list[int]) -> list[bytes]:
    inside = sorted(place % (len(content) + 1) for place in places)
    pieces = [content[start:end] for start, end in itertools.pairwise([0, *inside, len(content)])]
    return [piece for piece in pieces if piece]


# Of two faults in a message the one found first is named, which depends on the cut; so only one is possible.
LIMITS_OF_ONE_KIND = replace(LIMITS, max_line=None)
PLACES = st.lists(st.integers(0, 10_000), max_size=8)


@settings(deadline=None)
@given(st.lists(COMMANDS, max_size=25).map(b"".join), PLACES)
def test_server(script: bytes, places: list[int]) -> None:
    for start in (b"", b"EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"):
        whole = ServerRun(LIMITS_OF_ONE_KIND).feed(cut(start + script, []))
        pieces = ServerRun(LIMITS_OF_ONE_KIND).feed(cut(start + script, places))
        assert whole.output == pieces.output
        assert whole.messages == pieces.messages
        assert all(
            b"\r" not in line and b"\n" not in line for m in whole.messages for line in m.split(b"\r\n")
        )
        assert whole.closed == pieces.closed
        assert whole.feed([b""]).closed


@settings(deadline=None)
@given(st.lists(COMMANDS | st.just(b"STARTTLS\r\n"), max_size=25), st.booleans())
def test_server_with_tls_and_logins(script: list[bytes], login: bool) -> None:
    """Whatever comes in whatever order: TLS once, and no mail before somebody is logged in."""

    def decide(question: Question) -> bytes | None:
        return b"more" if isinstance(question, Auth | AuthResponse) and not login else None

    offer = Offer(starttls=True, login=True)
    run = ServerRun(LIMITS, decide, offer, tls_mechanisms=("PLAIN",)).feed(script)
    assert sum(isinstance(event, StartTls) for event in run.events) <= 1
    logged_in = False
    for event in run.events:
        if isinstance(event, Auth | AuthResponse):
            logged_in = login
        assert logged_in or not isinstance(event, Mail)
    assert run.feed([b""]).closed


@settings(deadline=None)
@given(
    st.sampled_from([(), (b"PIPELINING",), (b"CHUNKING",), (b"PIPELINING", b"CHUNKING")]),
    st.lists(REPLIES, max_size=25).map(b"".join),
    PLACES,
)
def test_client(offered: tuple[bytes, ...], replies: bytes, places: list[int]) -> None:
    client = SmtpClient("client.example")
    client.receive_data(
        b"220 mx\r\n250-mx\r\n" + b"".join(b"250-%s\r\n" % word for word in offered) + b"250 x\r\n"
    )
    client.next_event()
    client.begin(transaction("b@x", "c@x", "d@x", size=3))
    finished = []
    for piece in [*cut(replies, places), b""]:
        client.receive_data(piece)
        while not isinstance(event := client.next_event(), NeedData):
            if isinstance(event, SendData) and not client.closed:
                client.send_message(b"x\r\n")
                client.end_message()
            if isinstance(event, Finished):
                finished.append(event)
        client.data_to_send()
    assert len(finished) == 1
    assert len(finished[0].results) == 3
    assert client.closed
