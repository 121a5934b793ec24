"""Programs of others that the tests run against."""

from __future__ import annotations

import os
import shutil

import pytest

SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"  # where daemons are, for users who have no such PATH


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM}")
    if found is None:
        pytest.fail(f"{name} is not installed, and these tests are about it; run: make system")
    return found
