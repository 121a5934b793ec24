"""The package that `gateway plugins new` makes. What it says of hooks is read from their specifications."""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

import gateway
from gateway.config.sets import hint
from gateway.hookspecs import SPECS, HookSpecs

WIDTH = 88  # characters of a line, as most formatters have it
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[._-][a-z0-9]+)*")
# What annotations of hooks name besides the public names of `gateway`.
_ELSEWHERE = {
    "AbstractAsyncContextManager": "contextlib",
    "Mapping": "collections.abc",
    "Sequence": "collections.abc",
    "Literal": "typing",
    "datetime": "datetime",
}

PYPROJECT = Template("""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$distribution"
version = "0.1.0"
description = "A plugin for the mail gateway."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["mail-gateway"]

[project.optional-dependencies]
test = ["mail-gateway[testing]"]

# The plugin's name, and where it is: the gateway finds it by this.
[project.entry-points."mail_gateway"]
"$name" = "$module"

[tool.hatch.build.targets.wheel]
only-include = ["$module.py"]

[tool.pytest.ini_options]
trio_mode = true
""")

MODULE = Template('''\
"""The plugin $name. What each hook may answer is in the gateway's docs/plugins/."""

from __future__ import annotations

$imports


class Settings(BaseModel):
    """[plugin.$key]"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: str = ""  # an example: replace it

$functions''')

FUNCTION = Template('''
@hookimpl
def $hook($arguments) -> $answer:
    """$doc"""
$body''')

TEST = Template("""\
import $module

from gateway.testing import MailGateway


async def test_it_is_asked(mail_gateway: MailGateway) -> None:
    async with mail_gateway($module) as gateway:
        for hook in [$hooks]:
            assert "$module" in gateway.asked(hook)


async def test_mail_goes_on(mail_gateway: MailGateway) -> None:
    settings = {"$module": {"note": "hi"}}
    async with mail_gateway($module, settings=settings) as gateway:
        happened = await gateway.deliver(to="ada@example.com")
        assert happened["ada@example.com"].state == "delivered"
        assert happened.log == ()  # it has not failed
""")

README = Template("""\
# $distribution

The plugin `$name` for the mail gateway: $hooks.

    pip install .

Then, in `gateway.toml`:

```toml
[plugins]
sets = ["mine", "default"]  # before "default": earlier plugins are asked first

[plugin_sets.mine]
plugins = ["$name"]

[plugin.$key]
note = "an example"
```

Its tests: `pip install -e '.[test]'`, then `python -m pytest`.
""")


def make(where: Path, name: str, hooks: Sequence[str]) -> Path:
    """Make a distribution with a plugin below `where`; its directory. Raises ValueError, OSError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a plugin; write one such as acme.greeter, in lower case")
    module, distribution = re.sub(r"[.-]", "_", name), re.sub(r"[._]", "-", name)
    if keyword.iskeyword(module) or module == "gateway" or module in sys.stdlib_module_names:
        raise ValueError(f"{name!r}: no module can be called {module!r}; choose another name")
    if not hooks:
        raise ValueError(f"--hooks: name one at least; the hooks are: {', '.join(SPECS)}")
    for hook in hooks:
        if hook not in SPECS:
            raise ValueError(f"--hooks: there is no hook {hook!r}; {hint(hook, SPECS, 'the hooks are')}")
    ordered = tuple(hook for hook in SPECS if hook in hooks)
    directory = where / distribution
    if directory.exists():
        raise ValueError(f"{directory} is there already, and nothing is overwritten; choose another name")
    given = {
        "name": name,
        "module": module,
        "distribution": distribution,
        "key": f'"{name}"' if "." in name else name,
    }
    files = {
        "pyproject.toml": PYPROJECT.substitute(given),
        f"{module}.py": MODULE.substitute(
            given, imports=_imports(ordered), functions="\n".join(map(_function, ordered))
        ),
        f"test_{module}.py": TEST.substitute(given, hooks=_listed(ordered)),
        "README.md": README.substitute(given, hooks=", ".join(f"`{hook}`" for hook in ordered)),
    }
    directory.mkdir(parents=True)
    for file, text in files.items():
        (directory / file).write_text(text, encoding="utf-8")
    return directory


def _listed(hooks: Sequence[str]) -> str:
    together = ", ".join(f'"{hook}"' for hook in hooks)
    if len(f"        for hook in [{together}]:") <= WIDTH:
        return together
    return "".join(f'\n            "{hook}",' for hook in hooks) + "\n        "


def _signature(hook: str) -> tuple[dict[str, str], str]:
    """The annotations of a hook's arguments, without `self` and `settings`, and of its answer."""
    signature = inspect.signature(getattr(HookSpecs, hook))
    arguments = {
        name: str(parameter.annotation)
        for name, parameter in signature.parameters.items()
        if name not in ("self", "settings")
    }
    return arguments, str(signature.return_annotation)


def _function(hook: str) -> str:
    arguments, answer = _signature(hook)
    listed = [f"{name}: {kind}" for name, kind in {**arguments, "settings": "Settings"}.items()]
    together = ", ".join(listed)
    if len(f"def {hook}({together}) -> {answer}:") > WIDTH:
        together = "".join(f"\n    {one}," for one in listed) + "\n"
    doc = (inspect.getdoc(getattr(HookSpecs, hook)) or "").partition("\n\n")[0].replace("\n", " ")
    body = "" if answer == "None" else "    return None  # nothing to say\n"
    return FUNCTION.substitute(hook=hook, arguments=together, answer=answer, doc=doc, body=body)


def _imports(hooks: Sequence[str]) -> str:
    """Import statements for what the functions name, sorted as linters like them."""
    used = set()
    for hook in hooks:
        arguments, answer = _signature(hook)
        used |= set(re.findall(r"\b[A-Za-z_]\w*", " ".join([*arguments.values(), answer])))
    standard: dict[str, list[str]] = {}
    for name in sorted(used & _ELSEWHERE.keys()):
        standard.setdefault(_ELSEWHERE[name], []).append(name)
    names = [*sorted(used & set(gateway.__all__)), "hookimpl"]
    ours = f"from gateway import {', '.join(names)}"
    if len(ours) > WIDTH:
        ours = "from gateway import (" + "".join(f"\n    {name}," for name in names) + "\n)"
    groups = [
        "\n".join(f"from {module} import {', '.join(names)}" for module, names in sorted(standard.items())),
        ("import click\n" if "click" in used else "") + "from pydantic import BaseModel, ConfigDict",
        ours,
    ]
    return "\n\n".join(group for group in groups if group)
