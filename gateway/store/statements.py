"""Statements that run for each message: compiled once, then run on the driver's own cursor.

SQLAlchemy's execution of a Core statement takes about 30 microseconds of Python, ten times what SQLite needs
for it, and it takes them from the event loop, which shares the interpreter with the writer's thread. A
`Statement` is written as any Core statement and means the same; only less happens each time it runs.

A parameter that is `expanding` (IN) takes a list; each length of it is a statement of its own.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa

Parameters = Mapping[str, Any]
Processor = Callable[[Any], Any]

_NONE: Parameters = {}


@dataclass(frozen=True, slots=True)
class _Form:
    """A statement compiled for one dialect, one choice of columns, and one length of its list."""

    sql: str
    pick: Callable[[Parameters], Sequence[Any]]  # the placeholders' values, by their names
    constants: Parameters  # of placeholders that are none of the caller's, as the driver takes them
    members: tuple[tuple[str, str, int], ...]  # of lists: placeholder, name of the list, index
    to_driver: tuple[tuple[int, Processor], ...]  # for the placeholders that the driver has otherwise
    row: Callable[[Iterable[Any]], Any] | None  # None: a text without `columns`, whose rows stay tuples
    processors: tuple[tuple[int, Processor], ...]  # for the columns that the driver has otherwise
    error: type[Exception]  # the driver's

    def arguments(self, given: Parameters) -> Sequence[Any]:
        if self.members:
            given = {**given, **{place: given[name][index] for place, name, index in self.members}}
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

    def all(self, conn: sa.Connection, given: Parameters = _NONE) -> list[Any]:
        """Every row."""
        form = self._form(conn, given)
        return form.rows(self._run(conn, form, given).fetchall())

    def first(self, conn: sa.Connection, given: Parameters = _NONE) -> Any | None:
        """The first row, or None."""
        rows = self.all(conn, given)
        return rows[0] if rows else None

    def scalar(self, conn: sa.Connection, given: Parameters = _NONE) -> Any:
        """The first column of the first row, or None."""
        form = self._form(conn, given)
        found = self._run(conn, form, given).fetchall()
        return form.scalar(found[0]) if found else None

    def insert(self, conn: sa.Connection, given: Parameters) -> int:
        """Of an INSERT into a table that gives its rows IDs: the new row's.

        Where the driver tells it, this takes half the time of RETURNING.
        """
        return cast(int, self._run(conn, self._form(conn, given), given).lastrowid)

    def run(self, conn: sa.Connection, given: Parameters = _NONE) -> int:
        """For its effect; how many rows it concerned."""
        return cast(int, self._run(conn, self._form(conn, given), given).rowcount)

    def run_each(self, conn: sa.Connection, given: Sequence[Parameters]) -> None:
        """For its effect, once for each of `given`, which all have the same names."""
        if not given:
            return
        form = self._form(conn, given[0])
        cursor = conn.connection.cursor()
        try:
            cursor.executemany(form.sql, [form.arguments(one) for one in given])
        except form.error as exc:
            raise _wrapped(exc, form) from exc

    def _run(self, conn: sa.Connection, form: _Form, given: Parameters) -> Any:
        cursor = cast(Any, conn.connection.dbapi_connection).cursor()
        try:
            return cursor.execute(form.sql, form.arguments(given))
        except form.error as exc:
            raise _wrapped(exc, form) from exc

    def _form(self, conn: sa.Connection, given: Parameters) -> _Form:
        key: tuple[Any, ...] = (conn.dialect.name,)
        if self._expanding:
            key += tuple(len(given[name]) for name in self._expanding)
        if self._is_insert:
            key += tuple(given)  # the columns
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _compile(self._clause, conn.dialect, given)
        return form


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
    members = {
        member: (name, index)
        for name, expanded in state.parameter_expansion.items()
        for index, member in enumerate(expanded)
    }
    places = list(state.positiontup or ())
    constants: dict[str, Any] = {}
    to_driver: list[tuple[int, Processor]] = []
    for at, place in enumerate(places):
        name, _ = members.get(place, (place, -1))
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
        members=tuple((place, *of) for place, of in members.items() if of[0] in given),
        to_driver=tuple(to_driver),
        row=row and row._make,
        processors=tuple(processors),
        error=dialect.loaded_dbapi.Error,
    )


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
