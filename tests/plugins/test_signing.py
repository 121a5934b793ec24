"""Standard Webhooks signatures, checked with the specification's own test vector and its Python library."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from gateway_signing import standard
from tests.hooks.helpers import a_webhook_call

OLD, NEW = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def test_the_public_test_vector() -> None:
    """libraries/go/webhook_test.go of github.com/standard-webhooks/standard-webhooks."""
    assert (
        standard.signature(
            OLD,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            datetime.fromtimestamp(1614265330, UTC),
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("secrets", [(OLD,), (NEW, OLD), (OLD, NEW)])
def test_the_public_library_verifies_ours(secrets: tuple[str, ...]) -> None:
    call = replace(a_webhook_call(), secrets=secrets, time=datetime.now(UTC), body='{"a": "ä"}'.encode())
    headers = standard.sign_webhook({"User-Agent": "x"}, call)
    assert headers is not None
    assert headers["User-Agent"] == "x"
    assert headers["webhook-id"] == "msg_5"
    for secret in (OLD, NEW):
        receiver = Webhook(secret)
        if secret in secrets:
            assert receiver.verify(call.body, dict(headers)) == {"a": "ä"}
        else:
            with pytest.raises(WebhookVerificationError):
                receiver.verify(call.body, dict(headers))
        with pytest.raises(WebhookVerificationError):
            receiver.verify(b'{"a": "b"}', dict(headers))


def test_without_secrets_nothing_is_signed() -> None:
    assert standard.sign_webhook({}, replace(a_webhook_call(), secrets=())) is None
