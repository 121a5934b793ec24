"""URLs of webhooks, as they are requested; httpx has an opinion of its own on each."""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.webhooks.connections import Failed
from gateway.webhooks.target import Target, target


def as_httpx_reads_it(url: str) -> tuple[str, int, bool, bytes]:
    parsed = httpx.URL(url)
    tls = parsed.scheme == "https"
    start = b"POST %s HTTP/1.1\r\nHost: %s\r\n" % (parsed.raw_path, parsed.netloc)
    return parsed.raw_host.decode(), parsed.port or (443 if tls else 80), tls, start


def read(found: Target) -> tuple[str, int, bool, bytes]:
    return (*found.origin, found.start)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://Example.ORG/Path",
        "https://example.org?x",
        "https://example.org:443/",
        "http://example.org:443/",
        "https://example.org:80/a?b=c&d=%20#fragment",
        "http://[::1]:9090/in",
        "http://127.0.0.1:9090/out//x/;p=1",
        "https://exämple.org/grüße?wörter=süß",
        "https://user:p%20w%3A@example.org/x",
        "https://example.org/already%20encoded%2F?x=%3F",
        "https://example.org/?next=https://example.net/?a",
    ],
)
def test_as_others_read_them(url: str) -> None:
    assert read(target(url)) == as_httpx_reads_it(url)


TEXT = st.text(st.characters(min_codepoint=0x21, blacklist_categories=("C", "Z")), max_size=12)


@given(
    path=TEXT.map(lambda text: re.sub(r"[?#]", "", text)),
    query=TEXT.map(lambda text: text.replace("#", "")),
    port=st.none() | st.integers(1, 65535),
)
@example("%", "%", None)
def test_any_path_and_query(path: str, query: str, port: int | None) -> None:
    where = "http://example.org" + (f":{port}" if port else "")
    found = target(f"{where}/{path}" + (f"?{query}" if query else ""))
    assert re.fullmatch(rb"POST /[\x21-\x7e]* HTTP/1\.1\r\nHost: [\x21-\x7e]+\r\n", found.start)
    # What it comes to is what was written.
    again = httpx.URL(where + found.start.split(b" ")[1].decode())
    assert (again.path, again.query) == (
        httpx.URL(f"{where}/{path}").path,
        httpx.URL(f"{where}/x?{query}").query,
    )


def test_a_login_in_a_url() -> None:
    assert target("https://example.org/").authorization == b""
    assert target("https://a%40b:p%C3%A4ss@example.org/").authorization == (
        b"Authorization: Basic YUBiOnDDpHNz\r\n"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "http://",
        "http:///path",
        "http://exa mple.org/",
        "http://example.org/a b",
        "http://example.org/\r\nX: y",
        "http://example.org/\tx",
        "http://example.org\x00/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://a%2Fb/",
        "https://" + "ä" * 80 + ".example/",
        "https://example.org/\ud800",
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Failed, match="the URL is wrong"):
        target(url)
