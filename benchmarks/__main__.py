"""`python -m benchmarks [NAME ...]`: measures, and prints a table. Without names: everything.

Each figure is the median of several rounds. Rates are put beside a yardstick that is measured in the same
rounds on the same machine, so that the ratio means something on a slow or busy one too; "ms CPU" is the
processor time of the process that is measured, for each message.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable

from benchmarks import processes
from benchmarks.deliver import deliver
from benchmarks.direct import direct
from benchmarks.engine import engine
from benchmarks.memory import memory
from benchmarks.progress import finished
from benchmarks.receive import inbound, submission
from benchmarks.send import batch, roundtrip, send
from benchmarks.table import Row, show
from benchmarks.webhooks import webhooks

BENCHMARKS: dict[str, Callable[[int], list[Row]]] = {
    "send": send,
    "batch": batch,
    "roundtrip": roundtrip,
    "deliver": deliver,
    "direct": direct,
    "inbound": inbound,
    "submission": submission,
    "webhooks": webhooks,
    "engine": engine,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_what_each_is() + "\n\nExample: python -m benchmarks send --rounds 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: everything)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of the gateway that is measured (default: 1)"
    )
    options = parser.parse_args()
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    processes.workers = options.workers
    rows = []
    for name in options.names or BENCHMARKS:
        rows += BENCHMARKS[name](options.rounds)
    finished()
    show(rows)


def _what_each_is() -> str:
    return "\n\n".join(
        f"{name}\n{textwrap.indent(inspect.cleandoc(measure.__doc__ or ''), '    ')}"
        for name, measure in BENCHMARKS.items()
    )


if __name__ == "__main__":
    main()
