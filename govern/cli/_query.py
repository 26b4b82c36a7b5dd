"""A query's rows as a `Table`: read in chunks, over a connection that cannot write, without telling who logs in how."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from govern.errors import BadInput, GovernError, MissingExtra, Unavailable
from govern.table import Table

#: Rows in one fetch: enough that the round trip does not count, and a hundred columns of them are some 10 MB.
CHUNK_ROWS: Final = 10_000


def query(url: str, sql: str) -> Table:
    """What a query selects from PostgreSQL or SQLite.

    Args:
        url: `postgresql+psycopg://user:password@host/database` or `sqlite:////absolute/file.db`.

    Raises:
        MissingExtra: SQLAlchemy is absent.
        BadInput: the URL or the query is wrong, it gives no rows, or a column twice.
        Unavailable: the database cannot be reached.
    """
    try:
        from sqlalchemy import exc, make_url

        from audit.database import name_of, open_engine
    except ModuleNotFoundError as error:
        raise MissingExtra("audit", needed_by="govern fit --sql") from error
    try:
        engine = open_engine(url, "read")
        secrets = [one for one in (make_url(url).password, *map(str, make_url(url).query.values())) if one]
    except (GovernError, exc.ArgumentError, ValueError):
        # What is wrong with it may be told by quoting it, and a password with it.
        raise BadInput(
            "--sql",
            why="it is no URL of PostgreSQL or SQLite",
            fix="write postgresql+psycopg://user:password@host/database, or sqlite:////absolute/file.db",
        ) from None
    # What follows "?" goes, too: drivers take passwords there.
    origin = name_of(engine).partition("?")[0]

    def told(error: exc.SQLAlchemyError) -> str:
        said = str(error.orig if isinstance(error, exc.DBAPIError) else error).strip()
        for secret in secrets:
            said = said.replace(secret, "***")
        return said

    try:
        with engine.connect() as connection:
            # As it stands: ":" and "%" are no places of parameters in it.
            as_it_is = connection.execution_options(stream_results=True, no_parameters=True)
            found = as_it_is.exec_driver_sql(sql)
            if not found.returns_rows:
                raise BadInput(f"the query to {origin}", why="it selects nothing", fix="write a SELECT")
            names = list(found.keys())
            chunks = [_chunk(names, rows) for rows in found.partitions(CHUNK_ROWS)]
    except exc.DBAPIError as error:
        # Without a statement it was the connection that failed.
        if error.statement is None:
            raise Unavailable(f"database {origin}", why=told(error), fix="correct --sql, or try again") from None
        raise BadInput(f"the query to {origin}", why=told(error), fix="correct --query") from None
    except exc.SQLAlchemyError as error:
        raise BadInput(f"the query to {origin}", why=told(error), fix="correct --query") from None
    finally:
        engine.dispose()
    return _table(origin, names, chunks)


def _chunk(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[pa.Array[Any]]:
    return [_array(name, [row[position] for row in rows]) for position, name in enumerate(names)]


def _array(name: str, values: list[Any]) -> pa.Array[Any]:
    values = [float(value) if isinstance(value, Decimal) else value for value in values]
    try:
        array: pa.Array[Any] = pa.array(values)
    except pa.ArrowException as error:
        raise BadInput(
            f"column {name!r} of the query", why=f"its values are of several types: {error}", fix="cast it in the query"
        ) from error
    return array


def _table(origin: str, names: Sequence[str], chunks: Sequence[Sequence[pa.Array[Any]]]) -> Table:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice or not chunks:
        raise BadInput(
            f"the query to {origin}: {f'column {twice[0]!r} comes twice' if twice else 'it gives no rows'}",
            why="a reference has rows, and each column one name",
            fix="name the columns with AS, or widen the query",
        )
    parts = [pa.table(dict(zip(names, chunk, strict=True))) for chunk in chunks]
    try:
        # A chunk may have whole numbers, or nothing, where another has fractions.
        whole = pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        raise BadInput(
            f"the query to {origin}", why=f"a column has several types: {error}", fix="cast it in the query"
        ) from error
    return Table(origin, whole)
