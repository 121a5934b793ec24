"""The page behind the links to unsubscribe (RFC 8058).

To look at it changes nothing, for scanners follow links; its button does what a mail program's does: it posts
`List-Unsubscribe=One-Click`. Nobody has to log in, and the answer is never a redirect.
"""

from __future__ import annotations

from quart import Quart, render_template, request

from gateway.errors import StoreError
from gateway.outbound.unsubscribe import PATH, BadLinkError
from gateway.web.api.errors import RETRY_AFTER
from gateway.web.api.services import Unsubscriber

FIELD, VALUE = "List-Unsubscribe", "One-Click"

Answer = tuple[str, int] | tuple[str, int, dict[str, str]]


def add_unsubscribe_page(app: Quart, unsubscriber: Unsubscriber) -> None:
    async def unsubscribe(token: str) -> Answer:
        try:
            link = await unsubscriber.read(token)
            asked = request.method == "POST"
            if asked:
                if (await request.form).get(FIELD) != VALUE:
                    return f"post {FIELD}={VALUE} as a form (RFC 8058)\n", 400, {"Content-Type": "text/plain"}
                await unsubscriber.unsubscribe(link)
        except BadLinkError as exc:
            return await render_template("unsubscribe_bad.html", reason=str(exc)), 404
        except StoreError:
            page = await render_template(
                "unsubscribe_bad.html", reason="this does not work just now; try again"
            )
            return page, 503, {"Retry-After": str(RETRY_AFTER)}
        return await render_template("unsubscribe.html", link=link, done=asked, field=FIELD, value=VALUE), 200

    app.add_url_rule(f"/{PATH}<token>", "unsubscribe", unsubscribe, methods=["GET", "POST"])
