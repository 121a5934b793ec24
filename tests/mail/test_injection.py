"""No string of a caller can add a header line, a part or an address, or change another field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mail.address import Address, AddressError
from gateway.mail.compose import ComposeError, Draft, File, Mailbox, compose
from gateway.mail.structure import Part, parse, summary
from tests.mail.helpers import draft, mailbox

HOSTILE = (
    st.text(st.sampled_from("\r\n\0\t :;,<>@\"\\()=?-_.%'*abBX1é日\u2028\x85\ud800"))
    | st.text()
    | st.sampled_from(
        [
            "a\r\nX-Injected: 1",
            "a\nX-Injected: 1",
            "a\rX-Injected: 1",
            "\r\n\r\n<p>body",
            "=?utf-8?q?a=0D=0AX-Injected:_1?=",
            'a" <evil@example.org>, "b',
            'x"; boundary="y',
            "x\u2028X-Injected: 1",
        ]
    )
)

FILE = File("a.txt", "text/plain", "<id@x>", b"data")
BASE = draft(
    text="text\n",
    html="<p>\n",
    headers=[("X-Own", "own")],
    references=["<r@x>"],
    cc=[mailbox("cc@example.net", "Cc")],
    reply_to=[mailbox("reply@example.net", "Reply")],
    inline_files=[FILE],
    alternative_files=[FILE],
    attached_files=[FILE],
)


def names(data: bytes) -> list[str]:
    return [name for name, _ in parse(data).headers]


def tree(part: Part) -> Any:
    return (
        part.content_type,
        sorted(name for name, _ in part.headers),
        [tree(member) for member in part.parts],
    )


PLACES = {
    "subject": lambda text: replace(BASE, subject=text),
    "text": lambda text: replace(BASE, text=text + "x"),
    "html": lambda text: replace(BASE, html=text + "x"),
    "message_id": lambda text: replace(BASE, message_id=f"<{text}@x>"),
    "reference": lambda text: replace(BASE, references=[f"<{text}>"]),
    "header value": lambda text: replace(BASE, headers=[("X-Own", text)]),
    "from name": lambda text: replace(BASE, from_=[Mailbox(text, BASE.from_[0].address)]),
    "to name": lambda text: replace(BASE, to=[Mailbox(text, BASE.to[0].address)]),
    "address": lambda text: replace(BASE, to=[Mailbox("x", Address(text, "example.net"))]),
    "user agent": lambda text: replace(BASE, user_agent=text),
    "file name": lambda text: replace(BASE, attached_files=[replace(FILE, name=text)]),
    "content ID": lambda text: replace(BASE, inline_files=[replace(FILE, content_id=text or "x")]),
    "data": lambda text: replace(BASE, attached_files=[replace(FILE, data=text.encode("utf-8", "replace"))]),
    "content type": lambda text: replace(
        BASE, attached_files=[replace(FILE, content_type=f"text/plain; x={text}")]
    ),
}


@pytest.mark.parametrize("place", PLACES)
@given(text=HOSTILE, smtputf8=st.booleans())
def test_nothing_can_be_added(place: str, text: str, smtputf8: bool) -> None:
    try:
        changed: Draft = PLACES[place](text)
        if smtputf8:
            changed = replace(changed, cc=[mailbox("cü@example.net", "Cc")])
        composed = compose(changed)
    except (ComposeError, AddressError):
        return
    expected = parse(compose(BASE).data)
    found = parse(composed.data)
    allowed = {"User-Agent"} if place == "user agent" else set()
    assert [name for name in names(composed.data) if name not in allowed] == names(compose(BASE).data)
    if place == "file name":  # without a name there is no field more or less, but text may be sniffed as such
        assert [tree(part)[1:] for part in found.root.parts] == [
            tree(part)[1:] for part in expected.root.parts
        ]
    else:
        assert tree(found.root)[2] == tree(expected.root)[2]
    before, after = summary(expected), summary(found)
    for name in ("from_", "to", "cc", "reply_to"):
        assert len(getattr(after, name)) == len(getattr(before, name))
        assert (
            place == "address"
            or name == "cc"
            or [a.address for a in getattr(after, name)] == [a.address for a in getattr(before, name)]
        )
    assert not found.headers.malformed
    # Whatever breaks lines for whatever reader: only CRLF is there.
    assert composed.data.count(b"\r") == composed.data.count(b"\n") == composed.data.count(b"\r\n")


@given(name=HOSTILE)
def test_header_names(name: str) -> None:
    try:
        composed = compose(replace(BASE, headers=[(name, "value")]))
    except ComposeError:
        return
    assert [found for found in names(composed.data) if found not in names(compose(BASE).data)] == (
        [name] if name != "X-Own" else []
    )
