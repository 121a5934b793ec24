"""The template engine `jinja`: what it gives, what it says of mistakes, and what a template cannot do."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import Template, TemplateError
from gateway_jinja.engine import MAX_OUTPUT, jinja


def a_template(text: str = "hi", subject: str = "", html: str = "") -> Template:
    return Template(name="test", engine="jinja", subject=subject, text=text, html=html)


def text(source: str, **variables: Any) -> str:
    return jinja(a_template(source))(variables).text


def test_only_html_is_escaped() -> None:
    part = "{{ name }} & {% if vip is defined %}vip{% else %}co{% endif %}"
    rendered = jinja(a_template(part, part, part))({"name": "<Ada>"})
    assert (rendered.subject, rendered.text) == ("<Ada> & co", "<Ada> & co")
    assert rendered.html == "&lt;Ada&gt; & co"


def test_lines_with_tags_only_leave_nothing() -> None:
    source = "Items:\n{% for item in items %}\n- {{ item.name }}: {{ item.price }}\n{% endfor %}\nBye\n"
    items = [{"name": "pen", "price": 1.5}, {"name": "ink", "price": 2}]
    assert text(source, items=items) == "Items:\n- pen: 1.5\n- ink: 2\nBye\n"


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("one\n{{ name }}", 2, "'name' is undefined"),
        ("{{ user.name }}", 1, "'dict object' has no attribute 'name'"),
        ("one\n\n{% for x in list %}\n{{ x.y }}{% endfor %}", 4, "has no attribute 'y'"),
        ("{{ 1 / 0 }}", 1, "ZeroDivisionError: division by zero"),
        ("one\n{{ user | nosuch }}", 2, "No filter named 'nosuch'."),
        ("one\n{% if %}", 2, "Expected an expression"),
        ("{{ name", 1, "unexpected end of template"),
        ("{% include 'other' %}", 1, "include: a template can use no other one"),
        ("\n{% extends 'other' %}", 2, "extends: a template can use no other one"),
        ("{% import 'other' as o %}", 1, "import: a template can use no other one"),
        ("{{ [].__class__ }}", 1, "access to attribute '__class__' of 'list' object is unsafe"),
        ("{{ ''.__class__.__mro__ }}", 1, "is unsafe"),
        ("{{ '{0.__class__}'.format(1) }}", 1, "is unsafe"),
        ("{{ list.append(1) }}", 1, "access to attribute 'append' of 'list' object is unsafe"),
        ("{{ cycler }}", 1, "'cycler' is undefined"),
        ("{{ range(10000000) | list }}", 1, "OverflowError: Range too big"),
        ("{% for i in range(99999) %}{{ 'x' * 100 }}{% endfor %}", 0, f"more than {MAX_OUTPUT} characters"),
        ("(" * 10 + "{{" + "(" * 5000, 0, "nested too deeply"),
    ],
)
def test_mistakes(source: str, line: int, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        text(source, user={}, list=[1])
    assert (caught.value.part, caught.value.line) == ("Text", line)
    assert said in caught.value.message


def test_the_part_is_named() -> None:
    for part in ("subject", "text", "html"):
        with pytest.raises(TemplateError) as caught:
            jinja(a_template(**{"text": "hi", part: "{{ x }}"}))({})
        assert str(caught.value).lower() == f"{part}, line 1: 'x' is undefined"


def test_nothing_of_one_is_left_for_the_next() -> None:
    render = jinja(a_template("{% set seen = name %}{{ seen }}{{ other | default('') }}"))
    assert render({"name": "Ada", "other": "secret"}).text == "Adasecret"
    assert render({"name": "Bob"}).text == "Bob"
    with pytest.raises(TemplateError):
        render({"other": "x"})
