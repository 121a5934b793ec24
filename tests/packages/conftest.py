from __future__ import annotations

import pytest

from tests.packages.environment import Environment, build, make_environment, once, projects


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Environment:
    """The gateway, the examples and the third party's plugins, installed from their wheels; made once."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "environment"
    with once(shared) as first:
        if first:
            wheels = shared / "wheels"
            wheels.mkdir()
            make_environment(shared / "venv", *build(wheels, *projects()))
    return Environment(shared / "venv")
