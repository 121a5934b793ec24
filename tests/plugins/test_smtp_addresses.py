"""Whatever address the gateway takes, the transport can write into a command."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Address
from gateway.mail.address import AddressError
from gateway_smtp.envelope import mailbox


@given(st.text(min_size=1, max_size=20), st.sampled_from(["example.org", "bücher.example", "[192.0.2.1]"]))
def test_every_localpart(localpart: str, domain: str) -> None:
    with suppress(AddressError):
        address = Address(localpart, domain)
        assert mailbox(address).localpart == address.localpart


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("a@bücher.example", "xn--bcher-kva.example"),
        ("ü@bücher.example", "bücher.example"),
        ("ü@نامه\u200cای.example", "xn--mgba3gch31f060k.example"),  # a joiner, which no command may have
    ],
)
def test_domains(text: str, domain: str) -> None:
    assert mailbox(Address.parse(text)).domain == domain
