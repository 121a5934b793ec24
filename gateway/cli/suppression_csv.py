"""Suppression lists as CSV files: reading, with what is wrong in which line; writing; progress."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from gateway.cli.common import CommandError, printable
from gateway.mail.address import Address, AddressError

COLUMNS = ("address", "base_address", "manual", "reason", "created", "expires", "list")
ADDRESS_COLUMNS = ("address", "email", "email_address", "emailaddress", "recipient")  # in this order
MAX_REASON = 2000  # characters
MAX_LISTED = 10  # wrong lines that are named
STEP = 500  # entries that the gateway is asked about at a time
SHOWN_EVERY = 10_000  # entries, where no terminal is looked at

_LIST = re.compile(r"[A-Za-z0-9._-]{0,100}")
_MANUAL = {"": True, "true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class WrongLine(Exception):
    """The text says what is wrong with a line."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    entry: dict[str, Any]  # as the command `suppression/import` takes it
    problem: str = ""  # then there is no entry


@contextmanager
def opened(path: str) -> Iterator[TextIO]:
    """The file, or for "-" standard input, which can be read twice. Raises CommandError."""
    try:
        if path == "-":
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
                yield io.TextIOWrapper(copy, encoding="utf-8-sig", newline="")
        else:
            with Path(path).open(encoding="utf-8-sig", newline="") as file:
                yield file
    except OSError as exc:
        raise CommandError(f"{path}: {exc.strerror}; name a CSV file, or - for standard input") from None
    except UnicodeDecodeError:
        raise CommandError(f"{path}: is not UTF-8; save it as CSV in UTF-8") from None


def read_lines(file: TextIO, path: str) -> Iterator[Line]:
    """Every line that has something in it, from the first. Raises CommandError if no column has addresses."""
    file.seek(0)
    # Strict: of a quote that is not closed, all that follows would be taken for one reason.
    rows = csv.reader(file, strict=True)
    columns: dict[str, int] | None = None
    ended = 0
    try:
        for row in rows:
            ended = rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = _columns(row, path)
                if columns is not _NO_HEADER:
                    continue
            try:
                yield Line(rows.line_num, _entry(row, columns))
            except WrongLine as exc:
                yield Line(rows.line_num, {}, str(exc))
    except csv.Error as exc:
        hint = "save it as CSV in UTF-8, with quotes in pairs, and doubled within a quoted cell"
        raise CommandError(f"{path}: line {ended + 1}: {exc}; {hint}") from None


def check(file: TextIO, path: str, *, skip_wrong: bool) -> int:
    """How many lines are good; those that are not are named. Raises CommandError if they are not to be
    skipped."""
    good = wrong = 0
    for line in read_lines(file, path):
        if not line.problem:
            good += 1
            continue
        wrong += 1
        if wrong <= MAX_LISTED:
            click.echo(printable(f"{path}: line {line.number}: {line.problem}"), err=True)
    if wrong > MAX_LISTED:
        click.echo(f"{path}: and {wrong - MAX_LISTED} more", err=True)
    if wrong and not skip_wrong:
        lines = "1 line is" if wrong == 1 else f"{wrong} lines are"
        raise CommandError(f"{path}: {lines} wrong, and nothing was done; mend them, or add --skip-wrong")
    return good


def steps(file: TextIO, path: str, total: int) -> Iterator[list[dict[str, Any]]]:
    """The good lines, as many as the gateway takes at a time; progress is shown."""
    progress = Progress(total)
    batch: list[dict[str, Any]] = []
    for line in read_lines(file, path):
        if not line.problem:
            batch.append(line.entry)
        if len(batch) == STEP:
            yield batch
            progress.add(len(batch))
            batch = []
    if batch:
        yield batch
        progress.add(len(batch))
    progress.end()


def write_header(out: TextIO, *columns: str) -> Any:
    """What writes the rows."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    return writer


def cells(entry: dict[str, Any], *, plain: bool) -> list[str]:
    """An entry in the columns of COLUMNS; `plain` for a terminal, which strangers' words must not control."""
    values = [
        entry["OriginalAddress"],
        entry["BaseAddress"],
        "true" if entry["Manual"] else "false",
        entry["Reason"],
        entry["Created"],
        entry["Expires"] or "",
        entry["List"],
    ]
    return [printable(value) for value in values] if plain else values


_NO_HEADER = {"address": 0}


def _columns(row: list[str], path: str) -> dict[str, int]:
    """Where the columns are; `_NO_HEADER` for a list of addresses without names."""
    names = {name.strip().lower().replace(" ", "_"): index for index, name in reversed(list(enumerate(row)))}
    for name in ADDRESS_COLUMNS:
        if name in names:
            return {"address": names[name]} | {
                column: names[column] for column in COLUMNS[2:] if column in names
            }
    if len(row) == 1 and "@" in row[0]:
        return _NO_HEADER
    raise CommandError(
        f"{path}: no column is named address; the first line names the columns, such as {','.join(COLUMNS)}"
    )


def _entry(row: list[str], columns: dict[str, int]) -> dict[str, Any]:
    """Raises WrongLine."""
    values = {name: row[at].strip() if at < len(row) else "" for name, at in columns.items()}
    try:
        address = Address.parse(values["address"])
    except AddressError as exc:
        raise WrongLine(str(exc)) from None
    manual = _MANUAL.get(values.get("manual", "").lower())
    if manual is None:
        raise WrongLine(f"manual is {values['manual']!r}; write true or false")
    reason = values.get("reason", "")
    if len(reason) > MAX_REASON or "\0" in reason:
        raise WrongLine(f"the reason has {len(reason)} characters, or a NUL; {MAX_REASON} are the most")
    list_name = values.get("list", "")
    if not _LIST.fullmatch(list_name):
        raise WrongLine(f"list is {list_name!r}; at most 100 letters, digits, dots, dashes and underscores")
    entry: dict[str, Any] = {"Address": str(address), "Reason": reason, "Manual": manual, "List": list_name}
    for name in ("created", "expires"):
        if values.get(name):
            entry[name.capitalize()] = _time(name, values[name])
    return entry


def _time(name: str, text: str) -> str:
    with suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(text)
        if found.utcoffset() is None:  # a date alone, as people write it
            found = found.replace(tzinfo=UTC)
        return found.astimezone(UTC).isoformat()
    raise WrongLine(f"{name} is {text!r}; write a time such as 2027-01-31T12:00:00Z")


class Progress:
    """On standard error: one line that changes on a terminal, else a line now and then. `total`: if known."""

    def __init__(self, total: int | None = None) -> None:
        self._total, self._done, self._shown = total, 0, 0.0
        self._live = sys.stderr.isatty()

    def add(self, count: int) -> None:
        before, self._done = self._done, self._done + count
        text = f"{self._done:,}" if self._total is None else f"{self._done:,} of {self._total:,}"
        if self._live:
            if time.monotonic() - self._shown > 0.1 or self._done == self._total:
                self._shown = time.monotonic()
                click.echo(f"\r{text}", nl=False, err=True)
        elif self._done // SHOWN_EVERY > before // SHOWN_EVERY:
            click.echo(text, err=True)

    def end(self) -> None:
        if self._live and self._done:
            click.echo(err=True)
