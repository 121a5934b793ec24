"""One request of a webhook call: its body by the account's plugins, signed by them, and sent."""

from __future__ import annotations

from datetime import datetime

from gateway import __version__
from gateway.config.settings import Settings
from gateway.errors import PluginError
from gateway.hooks.stages import Hooks
from gateway.model import Event, IncomingEvent, WebhookBody, WebhookCall
from gateway.store.changes import Call
from gateway.webhooks.client import Answer, WebhookClient, clean

USER_AGENT = f"mail-gateway/{__version__}"


class NoPayload(Exception):
    """There is nothing to send; the text says why. `forever`: and there never will be."""

    def __init__(self, reason: str, *, forever: bool = False) -> None:
        super().__init__(reason)
        self.forever = forever


class Caller:
    """Holds what each request needs, and no state."""

    def __init__(self, settings: Settings, hooks: Hooks, client: WebhookClient) -> None:
        self._settings, self._hooks, self._client = settings, hooks, client

    async def format(self, event: Event | IncomingEvent, format_name: str) -> WebhookBody | None:
        """The body for an event; None if the format has nothing for it. Raises NoPayload."""
        stages = self._hooks.for_account(event.account)
        body = await stages.format_webhook(event=event, format_name=format_name)
        if body is False:
            return None
        if not isinstance(body, WebhookBody) or not body.body:
            asked = ", ".join(stages.plugins("format_webhook"))
            raise NoPayload(f"the payload was not made: plugins failed or did not answer: {asked or 'none'}")
        return body

    async def post(
        self, call: WebhookCall, content_type: str, authorization: str, *, timeout: float | None = None
    ) -> Answer:
        """Sign the request and make it. Never raises for what plugins, URL or receiver do.

        `timeout` (seconds) shortens the configured one.
        """
        headers = {
            "Content-Type": content_type,
            "User-Agent": USER_AGENT,
            "X-Mox-Webhook-ID": str(call.id),
            "X-Mox-Webhook-Attempt": str(call.attempt),
        }
        if authorization:
            headers["Authorization"] = authorization
        stages = self._hooks.for_account(call.account)
        try:
            signed = await stages.sign_webhook(headers=headers, call=call)
            async with stages.around_webhook(call=call):
                fields = [(name.encode("ascii"), value.encode()) for name, value in signed.items()]
                return await self._client.post(call.url, call.body, fields, timeout=timeout)
        except PluginError as exc:
            return unsent(str(exc))

    def request(self, call: Call, body: bytes, now: datetime) -> WebhookCall:
        """What plugins see of a stored call's next request."""
        return WebhookCall(
            id=call.id,
            account=call.account,
            event=call.event_name,
            url=call.url,
            format=call.format,
            attempt=call.attempts,
            time=now,
            body=body,
            secrets=self._secrets(call),
        )

    def _secrets(self, call: Call) -> tuple[str, ...]:
        """Those that are configured now, so that a secret that was taken out signs no retry either."""
        account = self._settings.accounts.get(call.account)
        for target in account.webhook_targets(call.event_name) if account else ():
            if target.url == call.url:
                return target.secrets
        return ()


def unsent(error: str) -> Answer:
    """There was no request, for a reason that is not the URL's or the receiver's."""
    return Answer(False, 0, clean(error), "", 0.0, sent=False)
