"""The methods about the account's templates."""

from __future__ import annotations

from gateway.model import Template
from gateway.store.templates import StoredTemplate
from gateway.templates import DEFAULT_ENGINE
from gateway.web.api import models
from gateway.web.api.calls import Call
from gateway.web.api.errors import BadRequest

DEFAULT_PAGE = 10
MAX_TEMPLATES_PAGE = 100  # each may have 128 Ki characters


async def template_set(call: Call, request: models.TemplateSetRequest) -> models.EmptyResult:
    """Raises SubmissionRefused (user, missingBody), PluginError, StoreError."""
    template = Template(
        name=request.Name,
        engine=request.Engine or DEFAULT_ENGINE,
        subject=request.Subject,
        text=request.Text,
        html=request.HTML,
    )
    await call.services.templates.put(call.login.account, template)
    return models.EmptyResult()


async def template_list(call: Call, request: models.TemplateListRequest) -> models.TemplateListResult:
    """Raises BadRequest (user), StoreError."""
    maximum = request.Max or DEFAULT_PAGE
    if not 1 <= maximum <= MAX_TEMPLATES_PAGE:
        raise BadRequest("user", f"Max: {maximum} is not 1 to {MAX_TEMPLATES_PAGE}")
    found, cursor = await call.services.templates.page(call.login.account, request.Cursor, maximum)
    return models.TemplateListResult(Templates=[_template(stored) for stored in found], NextCursor=cursor)


async def template_delete(call: Call, request: models.TemplateDeleteRequest) -> models.EmptyResult:
    """Raises BadRequest (notFound), StoreError."""
    if not await call.services.templates.remove(call.login.account, request.Name):
        raise BadRequest("notFound", f"Name: there is no template {request.Name[:100]!a} in your account")
    return models.EmptyResult()


def _template(stored: StoredTemplate) -> models.Template:
    found = stored.template
    return models.Template(
        Name=found.name,
        Engine=found.engine,
        Subject=found.subject,
        Text=found.text,
        HTML=found.html,
        Updated=stored.updated,
    )
