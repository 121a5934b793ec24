"""Stage `template_engines`: templates with {name}, as `str.format_map` has them, without its attributes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gateway import Rendered, Template, TemplateEngine, TemplateError, hookimpl


def braces(template: Template) -> Callable[[Mapping[str, Any]], Rendered]:
    def fill(part: str, source: str, variables: Mapping[str, Any]) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in variables:
                raise TemplateError(part, 0, f"acme knows no {found[1]}")
            return str(variables[found[1]])

        return re.sub(r"\{(\w+)\}", value, source)

    return lambda variables: Rendered(
        subject=fill("Subject", template.subject, variables),
        text=fill("Text", template.text, variables),
        html=fill("HTML", template.html, variables),
    )


@hookimpl
def template_engines() -> Mapping[str, TemplateEngine]:
    return {"braces": braces}
