"""Pieces of SQL that the two databases write differently."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import Insert, Update

from lowtide.ledger.engine import Database
from lowtide.ledger.tables import BATCHES, REQUESTS


def among(database: Database, column: Column[Any], ids: Collection[str]) -> ColumnElement[bool]:
    """`column` is one of `ids`, as one parameter: the statement is the same for any number."""
    given = one_parameter(database, ids)
    return _among(column, literal(given, Text if database.sqlite else ARRAY(Text)), database.sqlite)


def among_these(column: Column[Any], *, sqlite: bool) -> ColumnElement[bool]:
    """`column` is one of the parameter `these`, which `one_parameter` makes: for a statement that
    is built once. To build one takes as long as to run it.
    """
    return _among(column, bindparam("these", type_=Text if sqlite else ARRAY(Text)), sqlite)


def one_parameter(database: Database, ids: Collection[str]) -> str | list[str]:
    """Any number of ids as the value of one parameter."""
    return orjson.dumps(list(ids)).decode() if database.sqlite else list(ids)


def _among(column: Column[Any], these: Any, sqlite: bool) -> ColumnElement[bool]:  # noqa: FBT001
    if sqlite:
        values = func.json_each(these)
        return column.in_(select(values.table_valued("value").c.value))
    return column == any_(cast(these, ARRAY(Text)))


def whole_days(database: Database, column: ColumnElement[Any]) -> ColumnElement[int]:
    """Days since the epoch of a column that holds seconds since the epoch, never negative."""
    days = column / 86400.0
    # A cast cuts in SQLite and rounds in PostgreSQL.
    return cast(days if database.sqlite else func.floor(days), Integer)


def insert_batch(database: Database) -> Any:
    """INSERT of a batch that does nothing, and returns no row, if its id is there."""
    insert = sqlite.insert if database.sqlite else postgresql.insert
    return insert(BATCHES).on_conflict_do_nothing(index_elements=["id"]).returning(BATCHES.c.id)


def insert_requests(database: Database) -> Any:
    """INSERT of requests, each a dict of columns, that skips custom_ids that are there."""
    insert = sqlite.insert if database.sqlite else postgresql.insert
    return insert(REQUESTS).on_conflict_do_nothing(index_elements=["custom_id"])


@cache
def sqlite_insert_rows(columns: tuple[str, ...]) -> str:
    """INSERT of requests with a `?` for each of `columns`, in this order, skipping custom_ids
    that are there.
    """
    statement = (
        sqlite.insert(REQUESTS)
        .values({name: bindparam(name) for name in columns})
        .on_conflict_do_nothing(index_elements=["custom_id"])
    )
    text, order = sqlite_text(statement)
    if order != columns:
        raise AssertionError(f"the values come as {columns}, the statement wants {order}")
    return text


def sqlite_text(statement: Insert | Update) -> tuple[str, tuple[str, ...]]:
    """A statement as text with `?`, and the names of its parameters in their order.

    For the driver's own bulk calls: SQLAlchemy's take as long for the parameters of a row as
    SQLite for the row.
    """
    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    return str(compiled), tuple(compiled.positiontup)


@cache
def incoming_table(columns: tuple[str, ...]) -> Table:
    """PostgreSQL: a table like the one of requests that lives for one transaction."""
    copied = [Column(name, REQUESTS.c[name].type) for name in columns]
    return Table(
        "lowtide_incoming",
        MetaData(),
        *copied,
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )


def copy_rows(connection: Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """PostgreSQL: streams rows into `table`; their values are in the order of its columns."""
    from psycopg import sql

    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table.name), sql.SQL(",").join(map(sql.Identifier, table.c.keys()))
    )
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([_PG_NAMES[type(column.type)] for column in table.c])
        for row in rows:
            copy.write_row(row)


_PG_NAMES = {
    Integer: "int4",
    BigInteger: "int8",
    Double: "float8",
    Text: "text",
    LargeBinary: "bytea",
}


def insert_new(incoming: Table, columns: tuple[str, ...]) -> Insert:
    """PostgreSQL: INSERT of the rows of `incoming`, skipping custom_ids that are there."""
    return (
        postgresql.insert(REQUESTS)
        .from_select(columns, select(*(incoming.c[name] for name in columns)))
        .on_conflict_do_nothing(index_elements=["custom_id"])
    )
