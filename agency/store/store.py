"""The agency's memory: documents, vendors, pending clean-ups and history, on SQLite (embedded) or PostgreSQL.

    async with Store.open("sqlite+aiosqlite:////home/ada/.agency/agency.db") as store:
        await store.put(application, id="notes")
        await store.get(Application, "notes")

Every call is one transaction and durable when it returns. Several tasks may use one store, and several processes one
database. What is kept for Vendor Modules has its own doors: :class:`~agency.store.credentials.EncryptedCredentials` and
:class:`~agency.store.persistence.StorePersistence`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic_core import to_json
from sqlalchemy import URL, ColumnElement, Executable, delete, event, func, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from agency.store import schema
from agency.store.models import CleanupRow, DocumentRow, EventRow, Row, VendorRow
from descriptors import documents
from descriptors.base import Document, utc_now
from descriptors.deployment import Kind

D = TypeVar("D", bound=Document)
R = TypeVar("R", bound=Row)

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process that writes."""
CLOSE_WITHIN = 5.0
"""Seconds that what is being written has when the store closes."""
_DRIVERS = {"sqlite": ("sqlite+aiosqlite", "sqlite"), "postgresql": ("postgresql+psycopg", "postgresql+psycopg")}
"""For each kind of database, the asyncio driver and the blocking one."""


class StoreError(Exception):
    """The store did not do what was asked."""


class CannotOpen(StoreError):
    """The database cannot be used."""


class AlreadyExists(StoreError):
    """There is a document of that kind with that id."""


class NotStored(StoreError):
    """There is no such thing in the store."""


class Conflicted(StoreError):
    """The document is not at the revision that was expected: somebody else has replaced it."""


@dataclass(frozen=True)
class VendorConfig:
    """A vendor that the agency works with: its name here, its module and what the module is told, and how it negotiates
    (see :class:`broker.pricing.Policy`). No secrets."""

    name: str
    module: str
    settings: dict[str, Any] = field(default_factory=dict)
    negotiation: dict[str, Any] = field(default_factory=dict)
    agent: str | None = None
    """The address of the agent that speaks for it, at another site; None: this site's own does."""


@dataclass(frozen=True)
class Cleanup:
    """Something at a vendor that is still to be removed: whatever was made with the idempotency key ``key``."""

    id: int
    vendor: str
    kind: Kind
    key: str
    reason: str
    since: datetime
    attempts: int = 0
    last_error: str | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened, in words, with values beside them that JSON can hold."""

    id: int
    at: datetime
    application: str | None
    kind: str
    text: str
    data: dict[str, Any]


class Store:
    """The agency's memory; made by :meth:`open`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._transactions = 0
        self._ended = asyncio.Event()

    # --- opening and closing ---

    @classmethod
    def open(cls, url: str) -> _Opening:
        """Open the database of that URL (``sqlite:///FILE`` or ``postgresql://…``), made and brought up to date where
        needed: ``await Store.open(url)`` or ``async with Store.open(url) as store``. :class:`CannotOpen` says why not.
        """
        return _Opening(url)

    async def close(self) -> None:
        """Close all connections. What is being written is written first: a connection in use would stay open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                while self._transactions:
                    self._ended.clear()
                    await self._ended.wait()
        await self._engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- documents ---

    async def put(self, document: Document, *, id: str, application: str | None = None) -> None:  # noqa: A002
        """Keep the document under that id, in place of any of its kind; then the application that it belongs to
        stays."""
        async with self.transaction() as session:
            await self.put_in(session, document, id=id, application=application)

    async def insert(self, document: Document, *, id: str, application: str | None = None) -> None:  # noqa: A002
        """Keep a document that is not there yet; :class:`AlreadyExists` if it is."""
        try:
            async with self.transaction() as session:
                session.add(DocumentRow(**_document_row(document, id, application)))
        except IntegrityError:
            raise AlreadyExists(f"there is a {document.tag} {id!r} already") from None

    async def replace(self, document: Document, *, id: str, expected_revision: int) -> None:  # noqa: A002
        """Put the document in place of the one at that revision; :class:`Conflicted` if it is at another, and
        :class:`NotStored` if there is none. The application that it belongs to stays.

        A document's revision is its own if it has one (:class:`~descriptors.deployment.Deployment`); otherwise it
        counts how often it was written, from 1: see :meth:`revision`.
        """
        values = _document_row(document, id, None)
        del values["created"], values["application"]
        values["revision"] = _own_revision(document) or expected_revision + 1
        one = _is(type(document), id)
        async with self.transaction() as session:
            changed = await session.scalar(
                update(DocumentRow)
                .where(*one, DocumentRow.revision == expected_revision)
                .values(values)
                .returning(DocumentRow.id)
            )
            present = changed or await session.scalar(select(DocumentRow.revision).where(*one))
        if present is None:
            raise _not_stored(type(document), id)
        if changed is None:
            raise Conflicted(
                f"the {document.tag} {id!r} is at revision {present}, not at {expected_revision}: "
                "somebody else has changed it; read it again"
            )

    async def get(self, kind: type[D], id: str) -> D:  # noqa: A002
        """The document of that kind and id; :class:`NotStored` if there is none."""
        found = await self.find(kind, id)
        if found is None:
            raise _not_stored(kind, id)
        return found

    async def find(self, kind: type[D], id: str) -> D | None:  # noqa: A002
        """The document of that kind and id; None if there is none."""
        async with self.transaction() as session:
            body = await session.scalar(select(DocumentRow.body).where(*_is(kind, id)))
        return None if body is None else _load(kind, body)

    async def revision(self, kind: type[Document], id: str) -> int:  # noqa: A002
        """The revision that the document is at; :class:`NotStored` if there is none."""
        async with self.transaction() as session:
            revision = await session.scalar(select(DocumentRow.revision).where(*_is(kind, id)))
        if revision is None:
            raise _not_stored(kind, id)
        return revision

    async def all(self, kind: type[D], *, application: str | None = None, newest_first: bool = False) -> list[D]:
        """All documents of that kind, of one application or of all, in the order in which they were first kept."""
        query = select(DocumentRow.body).where(DocumentRow.tag == kind.tag)
        if application is not None:
            query = query.where(DocumentRow.application == application)
        order = (DocumentRow.created, DocumentRow.id)
        query = query.order_by(*(column.desc() if newest_first else column.asc() for column in order))
        async with self.transaction() as session:
            bodies = (await session.scalars(query)).all()
        return [_load(kind, body) for body in bodies]

    async def delete(self, kind: type[Document], id: str) -> None:  # noqa: A002
        """Forget the document; gone already is fine."""
        async with self.transaction() as session:
            await session.execute(delete(DocumentRow).where(*_is(kind, id)))

    # --- vendors ---

    async def save_vendor(self, vendor: VendorConfig) -> None:
        """Remember a vendor, in place of any of that name."""
        await self.upsert(VendorRow, asdict(vendor))

    async def vendors(self) -> list[VendorConfig]:
        """All vendors, by name."""
        async with self.transaction() as session:
            rows = (await session.scalars(select(VendorRow).order_by(VendorRow.name))).all()
        return [_as(VendorConfig, row) for row in rows]

    async def remove_vendor(self, name: str) -> None:
        """Forget the vendor, and what was to be cleaned up there; :class:`NotStored` if there is none of that name. Its
        credentials are not touched."""
        async with self.transaction() as session:
            await session.execute(delete(CleanupRow).where(CleanupRow.vendor == name))
            removed = await session.scalar(delete(VendorRow).where(VendorRow.name == name).returning(VendorRow.name))
        if removed is None:
            raise NotStored(f"there is no vendor {name!r}")

    # --- pending clean-ups ---

    async def add_cleanup(self, vendor: str, kind: Kind, key: str, reason: str) -> None:
        """Remember that whatever was made with that key must be removed; a second time, only the reason changes."""
        row = {"vendor": vendor, "kind": kind, "key": key, "reason": reason, "since": utc_now(), "attempts": 0}
        await self.upsert(CleanupRow, row, by=("vendor", "kind", "key"), keep=("since", "attempts"))

    async def cleanups(self) -> list[Cleanup]:
        """All pending clean-ups, the oldest first."""
        async with self.transaction() as session:
            rows = (await session.scalars(select(CleanupRow).order_by(CleanupRow.id))).all()
        return [_as(Cleanup, row) for row in rows]

    async def cleanup_failed(self, id: int, error: str) -> None:  # noqa: A002
        """Count an attempt that did not succeed, and why."""
        values = {"attempts": CleanupRow.attempts + 1, "last_error": error}
        async with self.transaction() as session:
            await session.execute(update(CleanupRow).where(CleanupRow.id == id).values(values))

    async def cleanup_done(self, id: int) -> None:  # noqa: A002
        """Forget a clean-up: it is done."""
        async with self.transaction() as session:
            await session.execute(delete(CleanupRow).where(CleanupRow.id == id))

    # --- history ---

    async def record_event(
        self, kind: str, text: str, *, application: str | None = None, data: dict[str, Any] | None = None
    ) -> Event:
        """Add to the history. Values in ``data`` become JSON: moments and amounts become strings, secrets asterisks."""
        row = EventRow(at=utc_now(), application=application, kind=kind, text=text, data=data or {})
        async with self.transaction() as session:
            session.add(row)
            await session.flush()
            await session.refresh(row)
        return _as(Event, row)

    async def events(
        self,
        application: str | None = None,
        *,
        after_id: int = 0,
        limit: int = 1000,
        newest_first: bool = False,
        without: str | None = None,
    ) -> list[Event]:
        """Events of one application or of all from the one after ``after_id`` on, the oldest or the newest first;
        without those whose kind begins with ``without``."""
        order = EventRow.id.desc() if newest_first else EventRow.id.asc()
        query = select(EventRow).where(EventRow.id > after_id).order_by(order).limit(limit)
        if application is not None:
            query = query.where(EventRow.application == application)
        if without is not None:
            query = query.where(~EventRow.kind.startswith(without, autoescape=True))
        async with self.transaction() as session:
            return [_as(Event, row) for row in (await session.scalars(query)).all()]

    # --- for the other parts of agency.store ---

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: kept, durably, at the end of the block; undone when the block raises."""
        self._transactions += 1
        try:
            async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        finally:
            self._transactions -= 1
            self._ended.set()

    async def upsert(
        self,
        table: type[Row],
        values: dict[str, Any],
        *,
        by: tuple[str, ...] | None = None,
        keep: tuple[str, ...] = (),
    ) -> None:
        """Insert a row, or where one has the same ``by`` columns (the primary key), update all but those in
        ``keep``."""
        async with self.transaction() as session:
            await session.execute(self.upserting(table, values, by=by, keep=keep), values)

    def upserting(
        self,
        table: type[Row],
        columns: Iterable[str],
        *,
        by: tuple[str, ...] | None = None,
        keep: tuple[str, ...] = (),
        instead: Mapping[str, ColumnElement[Any]] | None = None,
    ) -> Executable:
        """What :meth:`upsert` executes, for a transaction that does more, with the values of one row or of many; the
        columns in ``instead`` are updated to what is given there."""
        # The two databases say it in the same words, and SQLAlchemy in two classes.
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(table.__table__)
        index = by or tuple(column.name for column in table.__table__.primary_key)
        changed = {name: insert.excluded[name] for name in columns if name not in (*index, *keep)}
        statement: Executable = insert.on_conflict_do_update(index_elements=index, set_=changed | dict(instead or {}))
        return statement

    async def put_in(self, session: AsyncSession, document: Document, *, id: str, application: str | None) -> None:  # noqa: A002
        """What :meth:`put` does, in a transaction that does more."""
        row = _document_row(document, id, application)
        kept = {"revision": func.coalesce(_own_revision(document), DocumentRow.revision + 1)}
        await session.execute(self.upserting(DocumentRow, row, keep=("created", "application"), instead=kept), row)


class _Opening:
    """A store being opened: to be awaited, or entered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Store | None = None

    def __await__(self) -> Generator[Any, None, Store]:
        return _open(self._url).__await__()

    async def __aenter__(self) -> Store:
        self._store = await _open(self._url)
        return self._store

    async def __aexit__(self, *_: object) -> None:
        if self._store is not None:
            await self._store.close()


async def _open(address: str) -> Store:
    try:
        url = make_url(address)
        asyncio_driver, blocking_driver = _DRIVERS[url.get_backend_name()]
    except Exception as error:
        raise CannotOpen("the store's URL must begin with sqlite:/// or postgresql://") from error
    try:
        if url.get_backend_name() == "sqlite":
            _make_private(url)
        await asyncio.to_thread(schema.upgrade, url.set(drivername=blocking_driver))
    except Exception as error:
        raise CannotOpen(f"the store {url.render_as_string()} cannot be opened: {error}") from error
    engine = create_async_engine(
        url.set(drivername=asyncio_driver),
        json_serializer=lambda value: to_json(value, inf_nan_mode="null").decode(),
        pool_pre_ping=url.get_backend_name() == "postgresql",
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    return Store(engine)


def _make_private(url: URL) -> None:
    """Make the file before SQLite does, for our eyes only; its companions (-wal, -shm) take over its mode."""
    if not url.database or url.database == ":memory:":
        raise ValueError("a store must be a file: what it holds has to outlast the process")
    file = Path(url.database)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.touch(mode=0o600)
    file.chmod(0o600)


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {int(BUSY_TIMEOUT * 1000)}",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _document_row(document: Document, id: str, application: str | None) -> dict[str, Any]:  # noqa: A002
    now = utc_now()
    return {
        "tag": document.tag,
        "id": id,
        "application": application or getattr(document, "application", None),
        "revision": _own_revision(document) or 1,
        "created": now,
        "updated": now,
        "digest": documents.digest(document),
        "body": documents.dump(document, documents.Form.JSON),
    }


def _own_revision(document: Document) -> int | None:
    return getattr(document, "revision", None)


def _load(kind: type[D], body: str) -> D:
    return documents.load(body, form=documents.Form.JSON, expect=kind)


def _is(kind: type[Document], id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:  # noqa: A002
    return DocumentRow.tag == kind.tag, DocumentRow.id == id


def _not_stored(kind: type[Document], id: str) -> NotStored:  # noqa: A002
    return NotStored(f"there is no {kind.tag} {id!r}")


T = TypeVar("T", VendorConfig, Cleanup, Event)


def _as(value: type[T], row: Row) -> T:
    """The row as a plain value, field by field."""
    return value(**{name: getattr(row, name) for name in value.__dataclass_fields__})
