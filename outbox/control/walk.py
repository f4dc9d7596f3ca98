"""Walk along an index and tell of each row whether it passes: how a list finds what no index knows.

A page looks at a bounded number of rows. Where it has seen so many and is not full, it says until when it has searched
and how to go on, so no page takes longer the more history there is. What an index does know (time, subscription, that
an attempt failed) bounds the walk itself. Where several subscriptions are walked, each has its share of the rows; the
page ends where the first of them that has more was left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from outbox.control.pages import Listing, Page
from outbox.control.planned import along_indexes

Made = TypeVar("Made")

_EVER = datetime.min.replace(tzinfo=UTC)  # no row is older, and every driver has it

__all__ = ["Walk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One list's walk: newest first, over the rows of `table`, whose name in SQL is w.

    listing: its keys, all descending. time: the column that says how far a search came. columns: what the joins, the
    conditions and the document need of a row, but for what is wide. branch: the column that tells whose row it is,
    where several are walked. joins: what conditions may be about, on w. found: what is read of both. details: a query
    on f, a row of the page, for what is wide or takes long.
    """

    listing: Listing
    table: str
    time: str
    columns: str
    branch: str = ""
    joins: str = ""
    found: str = "w.*"
    details: str = "select"

    def page(
        self,
        connection: Connection,
        *,
        along: str,
        passing: str,
        parameters: dict[str, Any],
        branches: Sequence[UUID] | None,
        looked: int,
        make: Callable[[Any], Made],
        table: str | None = None,
        recent: Sequence[datetime] = (),
    ) -> Page[Made]:
        """Return a page of the rows of the walk that pass.

        Args:
            connection: to the database.
            along: the condition on w that an index serves.
            passing: the condition on w and what is joined that each row is asked.
            parameters: of both; `limit` is one row more than the page has.
            branches: the values of the branch to walk, None for all rows as one.
            looked: how many rows the page may look at, in all.
            make: makes a document of a row.
            table: what to walk in place of the walk's own.
            recent: since when to walk at first, the latest first. A page that is full so, or has looked at as much as
                it may, is the same as without it, and opens fewer leaves.
        """
        each = max(parameters["limit"], looked // max(1, len(branches or ())))
        bound = parameters | {"each": each} | ({} if branches is None else {"branches": list(branches)})
        if recent:
            along = f"{along} and w.{self.time} >= cast(:floor as timestamptz)"
        statement = text(self._statement(table or self.table, along, passing, branched=branches is not None))
        for floor in recent:
            page = self._page(connection, statement, bound | {"floor": floor}, make)
            if page.next is not None:
                return page
        return self._page(connection, statement, bound | {"floor": _EVER}, make)

    def _page(
        self, connection: Connection, statement: TextClause, bound: dict[str, Any], make: Callable[[Any], Made]
    ) -> Page[Made]:
        with along_indexes(connection):
            rows = connection.execute(statement, bound).all()
        found = [row for row in rows if row.is_found]
        page = self.listing.page(found, bound["limit"] - 1, make)
        edge = rows[0] if rows else None
        if page.next is not None or edge is None or edge.edge_time is None:
            return page
        values = [getattr(edge, f"edge_{place}") for place in range(len(self.listing.keys))]
        return Page(page.items, self.listing.cursor_of(values), searched_until=edge.edge_time)

    def _statement(self, table: str, along: str, passing: str, *, branched: bool) -> str:
        keys = [key.name for key in self.listing.keys]
        newest = ", ".join(f"{name} desc" for name in keys)
        listed = ", ".join(keys)
        of_branch = f" and w.{self.branch} = b.id" if branched else ""
        source = "unnest(cast(:branches as uuid[]))" if branched else "(values (1))"
        edges = ", ".join(f"edge.{name} as edge_{place}" for place, name in enumerate(keys))
        return f"""
with looked as materialized (
    select b.id as branch, x.* from {source} b(id) cross join lateral (
        select {self.columns} from {table} w where {along}{of_branch}
        order by {", ".join(f"w.{name} desc" for name in keys)} limit :each) x),
edge as (
    select * from (
        select distinct on (branch) {listed}, {self.time} as edge_time from looked
        where branch in (select branch from looked group by branch having count(*) = :each)
        order by branch, {listed}) last
    order by {newest} limit 1),
found as (
    select {self.found} from (select * from looked order by {newest} offset 0) w {self.joins}
    where {passing} and (({", ".join(f"w.{name}" for name in keys)}) >= (select {listed} from edge)) is not false
    order by {", ".join(f"w.{name} desc" for name in keys)} limit :limit)
select {edges}, edge.edge_time, f.{keys[-1]} is not null as is_found, f.*, d.*
from (values (1)) one left join edge on true left join found f on true
left join lateral ({self.details}) d on true
order by {", ".join(f"f.{name} desc" for name in keys)}
"""  # noqa: S608 - the parts are constants; every value is a parameter
