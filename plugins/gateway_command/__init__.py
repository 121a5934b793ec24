"""The command `gateway`, from its first moment on: importing it takes most of a second.

Not in the package `gateway`, which would be imported first.
"""

from __future__ import annotations

import sys


def main(prog_name: str | None = None) -> None:
    try:
        from gateway.cli.main import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command(prog_name=prog_name)
