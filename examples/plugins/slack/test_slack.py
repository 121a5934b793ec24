import json

from gateway_slack import Slack, SlackSettings

from gateway.testing import event, permanent

SETTINGS = SlackSettings()


def text(given, **settings):
    body = Slack().format_webhook(given, "slack", SlackSettings(**settings))
    return json.loads(body.body)["text"]


def test_an_event_is_a_line():
    assert text(event()) == ":white_check_mark: *delivered*: hi to you@example.net"
    failed = event(name="failed", error="550 no such\r\n user")
    assert text(failed) == ":x: *failed*: hi to you@example.net\n> 550 no such user"


def test_others_text_mentions_nobody():
    assert "<!channel>" not in text(event(subject="<!channel> & <https://example.com|win>"))
    assert text(event(subject="a & b")).endswith(": a &amp; b to you@example.net")
    assert len(text(event(subject="x" * 10_000))) < 1100


def test_other_formats_and_events_are_left_alone():
    assert Slack().format_webhook(event(), "mox", SETTINGS) is None
    some = SlackSettings(events=("failed",))
    assert Slack().format_webhook(event(), "slack", some) is False
    assert Slack().format_webhook(event(name="failed"), "slack", some)


def test_a_channel():
    body = Slack().format_webhook(event(), "slack", SlackSettings(channel="#mail")).body
    assert json.loads(body)["channel"] == "#mail"


async def test_the_call(mail_gateway):
    url = {"accounts": {"app": {"webhook_outgoing": {"format": "slack"}}}}
    settings = {"slack": {"events": ["failed"]}}
    async with mail_gateway(Slack(), settings=settings, configuration=url) as gateway:
        assert (await gateway.deliver()).webhooks == ()
        gateway.transport().answer(permanent(550, "no such user"))
        [call] = (await gateway.deliver(subject="news")).webhooks
        assert call.json["text"] == ":x: *failed*: news to you@example.net\n> no such user"
