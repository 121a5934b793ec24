"""Templates of accounts: kept in the store, checked and rendered by the engines of plugins.

What an account writes, a worker process runs (`gateway.offload`): it may loop for ever, or ask for all the
memory there is. The workers are a pool of their own, so that nobody waits for them who has no template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gateway.clock import Clock
from gateway.errors import SubmissionRefused, TemplateError
from gateway.hooks.breaker import Tally
from gateway.hooks.calls import Call, Calls, ask
from gateway.hooks.registered import registered_call
from gateway.model import Rendered, Template, TemplateEngine
from gateway.offload import Offload, OffloadError
from gateway.store import templates
from gateway.store.store import Store
from gateway.store.templates import StoredTemplate

HOOK = "template_engines"
DEFAULT_ENGINE = "jinja"
LIMIT = 5.0  # seconds, for one template and TOGETHER recipients
TOGETHER = 100  # recipients
MAX_SIZE = 128 * 1024  # characters of a template's parts
MAX_RENDERED = 1024 * 1024  # characters of what it gives, likewise
MAX_TEMPLATES = 1000  # of an account
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Templates:
    """All accounts' templates. All methods raise StoreError."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        engines: Mapping[str, tuple[str, TemplateEngine]],
        offload: Offload,
        calls: Calls,
    ) -> None:
        """`engines`: by name, with the plugin's name. `offload`: for templates alone, with `LIMIT`."""
        self._store, self._clock, self._offload = store, clock, offload
        self._engines = {
            name: self._call(plugin, name, engine, calls[plugin, HOOK])
            for name, (plugin, engine) in engines.items()
        }

    async def put(self, account: str, template: Template) -> None:
        """Adds a template, or replaces the one of its name. Raises SubmissionRefused, PluginError."""
        if not _NAME.fullmatch(template.name):
            raise SubmissionRefused(
                "user", "Name: must be 1 to 100 letters, digits, dots, dashes, underscores"
            )
        if not template.text and not template.html:
            raise SubmissionRefused("missingBody", "a template needs Text or HTML")
        if len(template.subject) + len(template.text) + len(template.html) > MAX_SIZE:
            raise SubmissionRefused(
                "user", f"Subject, Text and HTML: more than {MAX_SIZE} characters together"
            )
        if "\0" in template.subject + template.text + template.html:
            raise SubmissionRefused("user", "Subject, Text and HTML: the character U+0000 is not allowed")
        await self._run(template, ())
        write = partial(
            templates.put, account=account, new=template, now=self._clock.now(), maximum=MAX_TEMPLATES
        )
        if not await self._store.write(write):
            raise SubmissionRefused("user", f"the account has {MAX_TEMPLATES} templates, which is the most")

    async def page(self, account: str, cursor: str, maximum: int) -> tuple[tuple[StoredTemplate, ...], str]:
        """Templates by name, and the cursor of the next page, empty at the end."""
        found = await self._store.read(lambda conn: templates.after(conn, account, cursor, maximum + 1))
        return found[:maximum], found[maximum - 1].template.name if len(found) > maximum else ""

    async def remove(self, account: str, name: str) -> bool:
        """False if there is none of that name."""
        return await self._store.write(lambda conn: templates.remove(conn, account, name))

    async def render(self, account: str, name: str, variables: Sequence[Mapping[str, Any]]) -> list[Rendered]:
        """What a template gives with each recipient's variables. Raises SubmissionRefused, PluginError."""
        found = await self._store.read(lambda conn: templates.get(conn, account, name))
        if found is None:
            raise SubmissionRefused("user", f"Template: there is no template {name[:100]!a} in your account")
        rendered: list[Rendered] = []
        for start in range(0, len(variables), TOGETHER):
            rendered += await self._run(found.template, variables[start : start + TOGETHER])
        return rendered

    async def _run(self, template: Template, variables: Sequence[Mapping[str, Any]]) -> list[Rendered]:
        if template.engine not in self._engines:
            known = ", ".join(sorted(self._engines)) or "none"
            raise SubmissionRefused(
                "user", f"Engine: there is no {template.engine[:100]!a}; there are: {known}"
            )
        found = await ask(self._engines[template.engine], (template, variables))
        where = f"template {template.name!a}"
        if isinstance(found, TemplateError):
            raise SubmissionRefused("user", f"{where}, {found}")
        if isinstance(found, OffloadError):
            raise SubmissionRefused("user", f"{where}: takes too much time or memory ({found})")
        rendered: list[Rendered] = found
        return rendered

    def _call(self, plugin: str, name: str, engine: TemplateEngine, tally: Tally) -> Call:
        async def run(template: Template, variables: Sequence[Mapping[str, Any]]) -> object:
            try:
                return await self._offload.run(render, engine, template, variables)
            except (TemplateError, OffloadError) as exc:  # the template's fault, not the plugin's
                return exc

        label = f"plugin {plugin!r}, template engine {name!r}"
        return registered_call(plugin, HOOK, label, run, arguments=("template", "variables"), tally=tally)


def render(
    engine: TemplateEngine, template: Template, variables: Sequence[Mapping[str, Any]]
) -> list[Rendered]:
    """In a worker process. Raises TemplateError, and whatever the engine does."""
    renderer = engine(template)
    rendered: list[Rendered] = []
    for given in variables:
        one = renderer(given)
        if not isinstance(one, Rendered):
            raise TypeError(f"the template engine answered {type(one).__name__}, not Rendered")
        if len(one.subject) + len(one.text) + len(one.html) > MAX_RENDERED:
            raise TemplateError("Subject, Text and HTML", 0, f"more than {MAX_RENDERED} characters together")
        rendered.append(one)
    return rendered
