"""`jinja`: templates in Jinja (https://jinja.palletsprojects.com), in its sandbox.

HTML is escaped, Subject and Text are not. A variable that is missing is an error, unless the template asks
whether it is there. A template stands alone: it can neither include nor extend another.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2 import Template as Compiled
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway import Rendered, Template, TemplateEngine, TemplateError, hookimpl

MAX_OUTPUT = 1024 * 1024  # characters of each part; it is as well that a loop does not fill the memory first
_FILE = "<template>"  # what Jinja calls the file of a template that has none
_ELSEWHERE = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)


@hookimpl
def template_engines() -> Mapping[str, TemplateEngine]:
    return {"jinja": jinja}


def jinja(template: Template) -> Callable[[Mapping[str, Any]], Rendered]:
    """A `gateway.TemplateEngine`."""
    subject = _part("Subject", template.subject, escaped=False)
    text = _part("Text", template.text, escaped=False)
    html = _part("HTML", template.html, escaped=True)

    def render(variables: Mapping[str, Any]) -> Rendered:
        return Rendered(subject=subject(variables), text=text(variables), html=html(variables))

    return render


def _environment(*, escaped: bool) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=escaped,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals = {"range": environment.globals["range"], "dict": dict}
    return environment


_ENVIRONMENTS = {escaped: _environment(escaped=escaped) for escaped in (False, True)}


def _part(part: str, source: str, *, escaped: bool) -> Callable[[Mapping[str, Any]], str]:
    if not source:
        return lambda _: ""
    environment = _ENVIRONMENTS[escaped]
    try:
        for node in environment.parse(source).find_all(_ELSEWHERE):
            what = type(node).__name__.lower()
            raise TemplateError(part, node.lineno, f"{what}: a template can use no other one")
        compiled = environment.from_string(source)
    except TemplateSyntaxError as exc:
        raise TemplateError(part, exc.lineno, exc.message or "is no template") from None
    except RecursionError:
        raise TemplateError(part, 0, "is nested too deeply") from None
    return lambda variables: _render(part, compiled, variables)


def _render(part: str, compiled: Compiled, variables: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    size = 0
    try:
        for piece in compiled.generate(variables):
            size += len(piece)
            if size > MAX_OUTPUT:
                raise TemplateError(part, 0, f"gives more than {MAX_OUTPUT} characters")
            pieces.append(piece)
    except TemplateError:
        raise
    except Exception as exc:  # whatever a template does wrong is its author's to mend
        reason = exc.message if isinstance(exc, JinjaError) else f"{type(exc).__name__}: {exc}"
        raise TemplateError(part, _line(exc), (reason or type(exc).__name__)[:500]) from None
    return "".join(pieces)


def _line(exc: Exception) -> int:
    """The innermost line of the template; 0 if it is in none."""
    lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == _FILE]
    return (lines[-1] if lines else 0) or 0
