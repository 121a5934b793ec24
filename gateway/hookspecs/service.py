"""The gateway itself: who logs in, what it offers, and what runs with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import click

from gateway.hookspecs import addition_checks
from gateway.hookspecs.additions import (
    ApiMethod,
    AsgiApplication,
    Authenticated,
    Collector,
    ContentStore,
    Credentials,
    GatewayContext,
    Service,
)
from gateway.hookspecs.marks import OnError, Scope, Verb, hookspec


class ServiceSpecs(Protocol):
    """The gateway itself: who logs in, what it offers, and what runs with it."""

    @hookspec(
        verb=Verb.FIRST,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=(Authenticated, bool),
        check=addition_checks.authenticate,
        raising_suspends=False,
    )
    def authenticate(self, credentials: Credentials, settings: Any) -> Authenticated | Literal[False] | None:
        """Says who somebody is that logs in with a name and a password.

        Called for logins over HTTP and by SMTP's PLAIN and LOGIN, before the gateway's own passwords and API
        keys are looked at; never by SCRAM, which shows no password. A good one is remembered for 5 seconds.
        Answer Authenticated, False to refuse (nobody else is asked, the gateway neither), None to leave it to
        the next.

        A failure: nobody is logged in, and the client is asked to try again (API error, SMTP 454). Only
        time-outs suspend this hook: strangers choose what it is asked, and must not keep others out by that.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=addition_checks.api_methods,
    )
    def api_methods(self, settings: Any) -> Mapping[str, ApiMethod] | None:
        """Adds methods to the web API.

        Called once, when the configuration is loaded. Answer the methods by their names, which must be
        nobody else's.

        A failure: the configuration is refused. A handler that raises or takes too long is answered with an
        error.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=addition_checks.pages,
    )
    def pages(self, settings: Any) -> Mapping[str, AsgiApplication] | None:
        """Adds pages to the web server: ASGI applications, each below `/plugins/NAME/`.

        Called once, when the configuration is loaded. Answer the applications by their names.

        A failure: the configuration is refused. An application that raises is answered with 500.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=addition_checks.commands,
    )
    def commands(self, settings: Any) -> Mapping[str, click.Command] | None:
        """Adds commands to the command line: `gateway NAME`.

        Called when the configuration is loaded, by the command line too. Answer the commands by their names.

        A failure: the configuration is refused; the command line says so, and has its own commands only.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=(list, tuple),
        check=addition_checks.metrics,
    )
    def metrics(self, settings: Any) -> Sequence[Collector] | None:
        """Adds numbers to the metrics.

        Called once, when the configuration is loaded. Answer collectors of prometheus_client, not registered
        anywhere (`registry=None`).

        A failure: the configuration is refused. A collector that raises is logged, and left out.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=addition_checks.services,
    )
    def services(self, settings: Any) -> Mapping[str, Service] | None:
        """Adds services: functions that run as long as the gateway does.

        Called once, when the configuration is loaded. Answer the services by their names. They are started
        after `start`, and cancelled before `stop`.

        A failure: the configuration is refused. A service that raises or ends is logged and started again,
        after 1 second at first, then after twice as long each time, a minute at most.
        """

    @hookspec(
        verb=Verb.ALL,
        scope=Scope.GATEWAY,
        limit=5.0,
        on_error=OnError.DEFER,
        answer=Mapping,
        check=addition_checks.content_store,
    )
    def content_store(self, settings: Any) -> Mapping[str, ContentStore] | None:
        """Adds content stores: where large messages (over 128 KiB) are kept.

        Called once, when the configuration is loaded. Answer the stores by their names; `[content] store`
        chooses one of them for what is new. What the others have can be read as long as they are registered.

        A failure: the configuration is refused. When a store fails or does not answer in time, what was to
        be sent or received is refused for now (API error `server`, SMTP 451), and an attempt fails for now;
        after five failures in a row it is suspended for a while, and all this is done at once.
        """

    @hookspec(verb=Verb.TELL, scope=Scope.GATEWAY, limit=30.0, on_error=OnError.DEFER, answer=type(None))
    def start(self, gateway: GatewayContext, settings: Any) -> None:
        """Hears that the gateway starts.

        Called once in each worker, when the store is open, before it serves.

        A failure: the gateway does not start. With another policy it is logged.
        """

    @hookspec(verb=Verb.TELL, scope=Scope.GATEWAY, limit=5.0, on_error=OnError.SKIP, answer=type(None))
    def stop(self, gateway: GatewayContext, settings: Any) -> None:
        """Hears that the gateway stops.

        Called once in each worker, when it serves nothing any more and all its work is done or given back,
        before the store is closed. Not called after a crash.

        A failure: logged.
        """
