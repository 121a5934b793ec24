"""Statements that run for each message: compiled once, then run on the driver's own cursor.

SQLAlchemy's execution of a Core statement takes about 30 microseconds of Python, ten times what SQLite needs
for it, and it takes them from the event loop, which shares the interpreter with the writer's thread. A
`Statement` is written as any Core statement and means the same; only less happens each time it runs.

A parameter that is `expanding` (IN) takes a list. It is filled up to a power of two with its last member, so
that there are few statements of different length.

What is run for many rows, or reads many, is few steps of SQLite, not one for each row (`all`, `run_each`,
`insert_each`, `scalar_each`). Around a step the driver lets go of the interpreter, and waits until it has it
again: beside a busy loop that takes longer than the step itself. Beside a long step the loop goes on.
"""

from __future__ import annotations

import json
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add, itemgetter
from typing import Any, cast

import sqlalchemy as sa

Parameters = Mapping[str, Any]
Processor = Callable[[Any], Any]

MOST_ROWS = 16  # in one step: each number of them is a statement that SQLite keeps
MANY_ROWS = 4  # which come as one the next time: for fewer, the way through JSON costs more than it spares

LONG_TEXT = 1024 * 1024  # characters: reading more of JSON at once holds the interpreter for milliseconds
MOST_COLUMNS = 100  # that SQLite lets json_array have

# Columns of these types go through JSON as they are; floating point numbers would be rounded.
_EXACT = (sa.Integer, sa.String, sa.Boolean, sa.JSON)

_NONE: Parameters = {}


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement compiled for one dialect, one choice of columns, and one length of its list."""

    sql: str
    pick: Callable[[Parameters], Sequence[Any]]  # the placeholders' values, by their names
    constants: Parameters  # of placeholders that are none of the caller's, as the driver takes them
    members: tuple[tuple[str, tuple[str, ...]], ...]  # lists, and the placeholders of their members
    to_driver: tuple[tuple[int, Processor], ...]  # for the placeholders that the driver has otherwise
    row: Callable[[Iterable[Any]], Any] | None  # None: a text without `columns`, whose rows stay tuples
    processors: tuple[tuple[int, Processor], ...]  # for the columns that the driver has otherwise
    error: type[Exception]  # the driver's
    in_one_row: str  # a SELECT that answers all rows as one JSON text; "" where there is none
    for_many: dict[int, str] = field(default_factory=dict)  # the statement for so many rows

    def sql_for(self, rows: int) -> str:
        if rows == 1:
            return self.sql
        if rows not in self.for_many:
            self.for_many[rows] = _for_many(self.sql, rows)
        return self.for_many[rows]

    def arguments(self, given: Parameters) -> Sequence[Any]:
        if self.members:
            given = dict(given)
            for name, places in self.members:
                given.update(zip(places, _filled_up(given[name]), strict=True))
        if self.constants:
            given = {**self.constants, **given}
        picked = self.pick(given)
        if not self.to_driver:
            return picked
        arguments = list(picked)
        for index, processor in self.to_driver:
            arguments[index] = processor(arguments[index])
        return arguments

    def scalar(self, found: Sequence[Any]) -> Any:
        """The first column of a row."""
        value = found[0]
        if self.processors and self.processors[0][0] == 0:
            return self.processors[0][1](value)
        return value

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Any]:
        if self.row is None:
            return list(found)
        if not self.processors:
            return [self.row(values) for values in found]
        rows = []
        for values in found:
            changed = list(values)
            for index, processor in self.processors:
                changed[index] = processor(changed[index])
            rows.append(self.row(changed))
        return rows


class Statement:
    """A Core statement with `bindparam`s for what differs from run to run.

    Rows are named tuples. Raises what SQLAlchemy raises (sqlalchemy.exc.DBAPIError).
    """

    def __init__(self, clause: sa.Executable) -> None:
        self._clause: Any = clause
        self._expanding = _expanding(clause)
        self._is_insert: bool = self._clause.is_insert
        self._forms: dict[tuple[Any, ...], _Form] = {}
        self._found_many = False  # the last time, and so probably the next time

    def all(self, conn: sa.Connection, given: Parameters = _NONE) -> list[Any]:
        """Every row."""
        form = self._form(conn, given)
        found_many, self._found_many = self._found_many, False  # should it fail, the next goes row by row
        text = ""
        if found_many and form.in_one_row:
            ((text,),) = self._execute(conn, form, form.in_one_row, form.arguments(given)).fetchall()
            found = json.loads(text)
        else:
            found = self._run(conn, form, given).fetchall()
        self._found_many = len(found) >= MANY_ROWS and len(text) <= LONG_TEXT
        return form.rows(found)

    def first(self, conn: sa.Connection, given: Parameters = _NONE) -> Any | None:
        """The first row, or None."""
        rows = self.all(conn, given)
        return rows[0] if rows else None

    def scalar(self, conn: sa.Connection, given: Parameters = _NONE) -> Any:
        """The first column of the first row, or None."""
        form = self._form(conn, given)
        found = self._run(conn, form, given).fetchall()
        return form.scalar(found[0]) if found else None

    def scalar_each(self, conn: sa.Connection, given: Sequence[Parameters]) -> list[Any]:
        """Of a SELECT that finds one row at most: `scalar` for each of `given`, in their order."""
        values: list[Any] = []
        for form, some in self._in_parts(conn, given):
            found = self._execute(conn, form, form.sql_for(len(some)), _joined(form, some)).fetchall()
            values += [form.scalar([value]) for value in (found[0] if found else [None])]
        return values

    def insert(self, conn: sa.Connection, given: Parameters) -> int:
        """Of an INSERT into a table that gives its rows IDs: the new row's.

        Where the driver tells it, this takes half the time of RETURNING.
        """
        return cast(int, self._run(conn, self._form(conn, given), given).lastrowid)

    def run(self, conn: sa.Connection, given: Parameters = _NONE) -> int:
        """For its effect; how many rows it concerned."""
        return cast(int, self._run(conn, self._form(conn, given), given).rowcount)

    def run_each(self, conn: sa.Connection, given: Sequence[Parameters]) -> None:
        """Of an INSERT or UPDATE, for its effect: once for each of `given`, which all have the same names.

        An UPDATE must not concern the same row twice.
        """
        for form, some in self._in_parts(conn, given):
            self._execute(conn, form, form.sql_for(len(some)), _joined(form, some))

    def insert_each(self, conn: sa.Connection, given: Sequence[Parameters]) -> list[int]:
        """As `insert`, for each of `given`: the new rows' IDs, in their order."""
        ids: list[int] = []
        for form, some in self._in_parts(conn, given):
            last = self._execute(conn, form, form.sql_for(len(some)), _joined(form, some)).lastrowid
            ids += range(last - len(some) + 1, last + 1)  # AUTOINCREMENT: one more for each row
        return ids

    def _in_parts(
        self, conn: sa.Connection, given: Sequence[Parameters]
    ) -> Iterator[tuple[_Form, Sequence[Parameters]]]:
        if given:
            form = self._form(conn, given[0])
            for start in range(0, len(given), MOST_ROWS):
                yield form, given[start : start + MOST_ROWS]

    def _run(self, conn: sa.Connection, form: _Form, given: Parameters) -> Any:
        return self._execute(conn, form, form.sql, form.arguments(given))

    def _execute(self, conn: sa.Connection, form: _Form, sql: str, arguments: Sequence[Any]) -> Any:
        cursor = cast(Any, conn.connection.dbapi_connection).cursor()
        try:
            return cursor.execute(sql, arguments)
        except form.error as exc:
            raise _wrapped(exc, form) from exc

    def _form(self, conn: sa.Connection, given: Parameters) -> _Form:
        key: tuple[Any, ...] = (conn.dialect.name,)
        if self._expanding:
            key += tuple(_power_of_two(len(given[name])) for name in self._expanding)
        if self._is_insert:
            key += tuple(given)  # the columns
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _compile(self._clause, conn.dialect, self._with_lists(given))
        return form

    def _with_lists(self, given: Parameters) -> Parameters:
        """With lists of the length that the statement has."""
        return {**given, **{name: _filled_up(given[name]) for name in self._expanding}}


def _expanding(clause: Any) -> tuple[str, ...]:
    found = {
        element.key
        for element in sa.sql.visitors.iterate(clause)
        if isinstance(element, sa.BindParameter) and element.expanding and element.value is None
    }
    return tuple(sorted(found))


def _compile(clause: Any, dialect: sa.Dialect, given: Parameters) -> _Form:
    compiled = clause.compile(dialect=dialect, column_keys=list(given) if clause.is_insert else None)
    # Columns that an INSERT leaves to their defaults.
    defaults = (
        {column.key: _default(column) for column in compiled.insert_prefetch} if clause.is_insert else {}
    )
    state = compiled.construct_expanded_state({**defaults, **given})
    lists = {member: name for name, places in state.parameter_expansion.items() for member in places}
    places = list(state.positiontup or ())
    constants: dict[str, Any] = {}
    to_driver: list[tuple[int, Processor]] = []
    for at, place in enumerate(places):
        name = lists.get(place, place)
        processor = compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
        if name not in given:
            value = state.parameters[place]
            constants[place] = value if processor is None else processor(value)
        elif processor is not None:
            to_driver.append((at, processor))
    columns = list(getattr(clause, "exported_columns", ()))
    processors = [
        (index, processor)
        for index, column in enumerate(columns)
        if (processor := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
    ]
    row: Any = namedtuple("Row", [column.key for column in columns], rename=True) if columns else None
    return _Form(
        sql=state.statement,
        pick=_picking(places),
        constants=constants,
        members=tuple((name, tuple(of)) for name, of in state.parameter_expansion.items() if name in given),
        to_driver=tuple(to_driver),
        row=row and row._make,
        processors=tuple(processors),
        error=dialect.loaded_dbapi.Error,
        in_one_row="" if clause.is_dml else _in_one_row(state.statement, columns, dialect),
    )


def _in_one_row(sql: str, columns: Sequence[sa.ColumnElement[Any]], dialect: sa.Dialect) -> str:
    types = [column.type.dialect_impl(dialect) for column in columns]
    stored = [one.impl_instance if isinstance(one, sa.TypeDecorator) else one for one in types]
    suitable = 0 < len(columns) <= MOST_COLUMNS and all(isinstance(one, _EXACT) for one in stored)
    if dialect.name != "sqlite" or not suitable:
        return ""
    names = ", ".join(f"c{number}" for number in range(len(columns)))
    return f"WITH found ({names}) AS ({sql}) SELECT json_group_array(json_array({names})) FROM found"  # noqa: S608


def _for_many(sql: str, rows: int) -> str:
    """A statement for so many rows, whose arguments it takes one row after the other.

    An INSERT or UPDATE; of a SELECT, one whose columns are what it finds for each.
    """
    if sql.startswith("SELECT"):
        return f"SELECT {', '.join([f'({sql})'] * rows)}"
    if sql.startswith("INSERT"):
        # The values are placeholders and constants: none has a parenthesis.
        return re.sub(r"(?<= VALUES )\([^)]*\)", lambda row: ", ".join([row[0]] * rows), sql, count=1)
    parts = sql.split("?")
    columns = [f"given.c{number}" for number in range(len(parts) - 1)]
    change, where = "".join(map(add, parts, [*columns, ""])).split(" WHERE ")
    names = ", ".join(column.removeprefix("given.") for column in columns)
    row = f"({', '.join('?' * len(columns))})"
    given = f"WITH given ({names}) AS (VALUES {', '.join([row] * rows)})"
    return f"{given} {change} FROM given WHERE {where}"


def _joined(form: _Form, given: Iterable[Parameters]) -> list[Any]:
    return [value for one in given for value in form.arguments(one)]


def _power_of_two(number: int) -> int:
    """The first that is not less; 0 for 0."""
    return 1 << (number - 1).bit_length() if number else 0


def _filled_up(members: Sequence[Any]) -> Sequence[Any]:
    """Up to a power of two with the last one, which makes no difference to IN."""
    missing = _power_of_two(len(members)) - len(members)
    return [*members, *[members[-1]] * missing] if missing else members


def _picking(names: Sequence[str]) -> Callable[[Parameters], Sequence[Any]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda given: [given[name] for name in names]


def _default(column: Any) -> Any:
    default = column.default
    return default.arg(None) if default.is_callable else default.arg


def _wrapped(exc: Exception, form: _Form) -> BaseException:
    """As SQLAlchemy raises it: by the same classes whatever the driver."""
    return sa.exc.DBAPIError.instance(form.sql, None, exc, form.error)
