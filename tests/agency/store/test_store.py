"""The store: what is put in comes out, whoever else is at work."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from agency.store.models import EventRow
from agency.store.store import AlreadyExists, CannotOpen, Conflicted, NotStored, Store, VendorConfig
from descriptors.deployment import Deployment
from descriptors.sla import Offer
from tests.agency.store.samples import deployment, offer


async def test_document_comes_out_as_it_went_in(store: Store) -> None:
    """A document is read back equal to what was put, amounts and moments exact."""
    await store.put(offer(per_hour="0.010000"), id="offer-1")
    assert await store.get(Offer, "offer-1") == offer(per_hour="0.010000")


async def test_put_replaces(store: Store) -> None:
    """Putting twice under one id keeps the second, in one row, at the place in the order of the first."""
    await store.put(offer("a"), id="a")
    await store.put(offer("b"), id="b")
    await store.put(offer("a", vendor="beta"), id="a")
    assert [o.vendor for o in await store.all(Offer)] == ["beta", "alpha"]
    assert await store.revision(Offer, "a") == 2


async def test_insert_refuses_a_second(store: Store) -> None:
    """Inserting over a document raises AlreadyExists, naming it, and leaves it as it was."""
    await store.insert(offer(), id="offer-1")
    with pytest.raises(AlreadyExists, match="offer 'offer-1'"):
        await store.insert(offer(vendor="beta"), id="offer-1")
    assert (await store.get(Offer, "offer-1")).vendor == "alpha"


async def test_only_one_of_many_inserts_wins(store: Store) -> None:
    """Of concurrent inserts of one id, exactly one succeeds."""
    outcomes = await asyncio.gather(
        *(store.insert(offer(vendor=f"v{i}"), id="offer-1") for i in range(10)), return_exceptions=True
    )
    assert sorted(type(o).__name__ for o in outcomes) == ["AlreadyExists"] * 9 + ["NoneType"]


async def test_replace_is_optimistic(store: Store) -> None:
    """A replacement is made at the expected revision only; otherwise Conflicted tells the revision there is."""
    await store.insert(deployment(revision=1), id="deployment-1")
    await store.replace(deployment(revision=2, status="stopped"), id="deployment-1", expected_revision=1)
    with pytest.raises(Conflicted, match="at revision 2, not at 1"):
        await store.replace(deployment(revision=2), id="deployment-1", expected_revision=1)
    assert (await store.get(Deployment, "deployment-1")).status == "stopped"


async def test_only_one_of_many_replacements_wins(store: Store) -> None:
    """Of concurrent replacements of one revision, exactly one succeeds, with or without a revision of its own."""
    await store.insert(offer(), id="offer-1")
    outcomes = await asyncio.gather(
        *(store.replace(offer(vendor=f"v{i}"), id="offer-1", expected_revision=1) for i in range(10)),
        return_exceptions=True,
    )
    assert sorted(type(o).__name__ for o in outcomes) == ["Conflicted"] * 9 + ["NoneType"]
    assert await store.revision(Offer, "offer-1") == 2


async def test_replace_keeps_the_application(store: Store) -> None:
    """A replacement stays with the application that the document was inserted for."""
    await store.insert(offer(), id="offer-1", application="notes")
    await store.replace(offer(vendor="beta"), id="offer-1", expected_revision=1)
    assert [o.vendor for o in await store.all(Offer, application="notes")] == ["beta"]


async def test_missing_document_is_named(store: Store) -> None:
    """Asking for a document that is not there raises NotStored with its kind and id."""
    for call in (
        store.get(Offer, "nowhere"),
        store.revision(Offer, "nowhere"),
        store.replace(offer(), id="nowhere", expected_revision=1),
    ):
        with pytest.raises(NotStored, match="no offer 'nowhere'"):
            await call


async def test_find_gives_none(store: Store) -> None:
    """Looking for a document that is not there gives None, also when another kind has that id."""
    await store.put(deployment(), id="one")
    assert await store.find(Offer, "one") is None


async def test_all_filters_and_orders(store: Store) -> None:
    """Documents are listed in the order they came or the reverse, of one application or of all."""
    for number, application in enumerate(["notes", "shop", "notes"]):
        await store.put(offer(f"offer-{number}"), id=f"offer-{number}", application=application)
    assert [o.id for o in await store.all(Offer, application="notes")] == ["offer-0", "offer-2"]
    assert [o.id for o in await store.all(Offer, newest_first=True)] == ["offer-2", "offer-1", "offer-0"]


async def test_application_is_taken_from_the_document(store: Store) -> None:
    """A document that says which application it is about is found by it."""
    await store.put(deployment(application="shop"), id="deployment-1")
    assert len(await store.all(Deployment, application="shop")) == 1
    assert await store.all(Deployment, application="notes") == []


async def test_delete_is_idempotent(store: Store) -> None:
    """A deleted document is gone, and deleting it again is fine."""
    await store.put(offer(), id="offer-1")
    await store.delete(Offer, "offer-1")
    await store.delete(Offer, "offer-1")
    assert await store.find(Offer, "offer-1") is None


async def test_everything_survives_reopening(url: str) -> None:
    """What was kept is there when the store is opened again."""
    async with Store.open(url) as store:
        await store.put(offer(), id="offer-1")
        await store.save_vendor(VendorConfig("alpha", "testbed", {"port": 80}))
    again = await Store.open(url)
    assert await again.get(Offer, "offer-1") == offer()
    assert await again.vendors() == [VendorConfig("alpha", "testbed", {"port": 80})]
    await again.close()


async def test_survives_the_death_of_the_process(tmp_path: Path) -> None:
    """What a call has kept is there although the process was killed right after it."""
    script = (
        "import asyncio, os, sys; from agency.store.store import Store\n"
        "async def main():\n"
        "    store = await Store.open(sys.argv[1])\n"
        "    await store.add_cleanup('alpha', 'volume', 'k', 'crashed')\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    url = f"sqlite:///{tmp_path}/agency.db"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, url], check=False, timeout=30)
    assert done.returncode == -9
    async with Store.open(url) as store:
        assert [c.key for c in await store.cleanups()] == ["k"]


async def test_sqlite_is_private_and_safe(tmp_path: Path) -> None:
    """The SQLite file and its companions are for the owner only; WAL, full sync and foreign keys are on."""
    async with Store.open(f"sqlite:///{tmp_path}/state/agency.db") as store:
        await store.put(offer(), id="offer-1")
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "state").iterdir()}
        assert set(modes) == {"agency.db", "agency.db-wal", "agency.db-shm"}
        assert set(modes.values()) == {0o600}
        async with store.transaction() as session:
            pragmas = {
                name: (await session.execute(text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


async def test_two_stores_write_at_once(url: str) -> None:
    """Two agencies on one database write without losing anything or failing because the other writes."""
    async with Store.open(url) as one, Store.open(url) as two:
        calls = [s.put(offer(f"o{i}-{n}"), id=f"o{i}-{n}") for i in range(25) for n, s in enumerate((one, two))]
        await asyncio.gather(*calls)
        assert len(await one.all(Offer)) == 50


async def test_opening_at_once_migrates_once(url: str) -> None:
    """Several processes may open an empty database at the same time."""
    stores = await asyncio.gather(*(Store.open(url).__aenter__() for _ in range(4)))
    for store in stores:
        assert await store.vendors() == []
        await store.close()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite:///:memory:", "sqlite:////proc/none/agency.db"])
async def test_unusable_urls_are_explained(url: str) -> None:
    """A URL that cannot be used raises CannotOpen, not a library's error."""
    with pytest.raises(CannotOpen):
        await Store.open(url)


async def test_password_of_the_database_is_not_told() -> None:
    """The error about a database that cannot be reached does not contain its password."""
    with pytest.raises(CannotOpen) as caught:
        await Store.open("postgresql://ada:geheim@127.0.0.1:1/x?connect_timeout=2")
    assert "geheim" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


async def test_file_that_is_no_database_is_explained(tmp_path: Path) -> None:
    """A file that SQLite cannot read raises CannotOpen and is left as it is."""
    file = tmp_path / "agency.db"
    file.write_bytes(b"not a database, certainly not one of SQLite's" * 100)
    with pytest.raises(CannotOpen, match="not a database"):
        await Store.open(f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"not a database")


async def test_newer_database_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is refused with the words that say so, and not touched."""
    url = f"sqlite:///{tmp_path}/agency.db"
    await (await Store.open(url)).close()
    with sqlite3.connect(tmp_path / "agency.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(CannotOpen, match="9999, which this version"):
        await Store.open(url)


async def test_what_is_being_written_is_written_before_it_closes(tmp_path: Path) -> None:
    """A store that closes waits for the transactions that have begun: a connection that is in use then would be left
    open, and what was being written in it with it."""
    store = await Store.open(f"sqlite:///{tmp_path}/agency.db")
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with store.transaction() as session:
            await store.put_in(session, offer("a"), id="a", application=None)
            begun.set()
            await may_end.wait()

    writing = asyncio.create_task(write())
    await begun.wait()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    assert not closing.done()
    may_end.set()
    await closing
    assert writing.done()
    async with Store.open(f"sqlite:///{tmp_path}/agency.db") as again:
        assert await again.get(Offer, "a") == offer("a")


async def test_vendors_are_saved_replaced_and_removed(store: Store) -> None:
    """A vendor is remembered by name, the latest settings count, and one that is not there cannot be removed."""
    await store.save_vendor(VendorConfig("beta", "testbed", {"zones": ["a", None, 1.5, True]}))
    await store.save_vendor(VendorConfig("alpha", "openstack"))
    await store.save_vendor(VendorConfig("alpha", "testbed", {"é": {"deep": "值"}}))
    assert await store.vendors() == [
        VendorConfig("alpha", "testbed", {"é": {"deep": "值"}}),
        VendorConfig("beta", "testbed", {"zones": ["a", None, 1.5, True]}),
    ]
    await store.add_cleanup("alpha", "volume", "plan-1/volume", "it was away")
    await store.remove_vendor("alpha")
    assert await store.cleanups() == [], "nothing is left to be cleaned up at a vendor that there is not"
    with pytest.raises(NotStored, match="no vendor 'alpha'"):
        await store.remove_vendor("alpha")
    assert [v.name for v in await store.vendors()] == ["beta"]


async def test_same_cleanup_is_one_row(store: Store) -> None:
    """Adding a clean-up again changes its reason and nothing else: attempts and age are not forgotten."""
    await store.add_cleanup("alpha", "volume", "key-1", "the relocation failed")
    (first,) = await store.cleanups()
    await store.cleanup_failed(first.id, "alpha: unreachable")
    await store.add_cleanup("alpha", "volume", "key-1", "the relocation was cancelled")
    (again,) = await store.cleanups()
    assert (again.id, again.since, again.attempts, again.last_error) == (first.id, first.since, 1, "alpha: unreachable")
    assert again.reason == "the relocation was cancelled"


async def test_cleanups_are_done_oldest_first(store: Store) -> None:
    """Clean-ups are listed in the order they came, without those that are done."""
    for key in ("one", "two", "three"):
        await store.add_cleanup("alpha", "machine", key, "crashed")
    await store.cleanup_done((await store.cleanups())[1].id)
    assert [c.key for c in await store.cleanups()] == ["one", "three"]


async def test_concurrent_additions_of_one_cleanup(store: Store) -> None:
    """The same clean-up added by many at once is one row."""
    await asyncio.gather(*(store.add_cleanup("alpha", "image", "k", f"reason {i}") for i in range(10)))
    assert len(await store.cleanups()) == 1


async def test_history_is_in_order_and_pages(store: Store) -> None:
    """Events come oldest first, of one application or all, from an id on, at most as many as asked for."""
    recorded = [
        await store.record_event("deployed", f"event {n}", application="notes" if n % 2 else "shop") for n in range(6)
    ]
    assert await store.events() == recorded
    assert await store.events("notes", after_id=recorded[1].id, limit=1) == [recorded[3]]
    assert [e.text for e in await store.events(after_id=recorded[3].id)] == ["event 4", "event 5"]


async def test_the_newest_events_without_a_kind(store: Store) -> None:
    """The newest of many events are found without reading the rest, and without kinds that nobody wants."""
    for n in range(6):
        await store.record_event("task_done" if n == 0 else "task-done" if n % 2 else "planned", f"event {n}")
    found = await store.events(newest_first=True, without="task-", limit=2)
    assert [event.text for event in found] == ["event 4", "event 2"]
    found = await store.events(newest_first=True, without="task_", limit=9)
    assert [event.text for event in found] == [f"event {n}" for n in (5, 4, 3, 2, 1)], "_ and % mean themselves"


async def test_event_values_become_json(store: Store) -> None:
    """Values beside an event become what JSON can hold; a secret does not get in."""
    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    data = {
        "at": moment,
        "price": Decimal("0.10"),
        "nan": float("nan"),
        "password": SecretStr("geheim"),
        "b": [1, None],
    }
    event = await store.record_event("moved", "moved", data=data)
    assert event.data == {
        "at": "2026-11-01T12:00:00Z",
        "price": "0.10",
        "nan": None,
        "password": "*" * 10,
        "b": [1, None],
    }
    assert (await store.events())[0].data == event.data


async def test_moments_are_aware_and_in_utc(store: Store) -> None:
    """A moment with any offset comes out as the same moment in UTC; one without an offset is refused."""
    local = datetime(2026, 11, 1, 12, 0, 0, 7, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    async with store.transaction() as session:
        session.add(EventRow(at=local, application=None, kind="k", text="t", data={}))
    (event,) = await store.events()
    assert event.at == local
    assert event.at.utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="no time zone"):
        async with store.transaction() as session:
            session.add(EventRow(at=local.replace(tzinfo=None), application=None, kind="k", text="t", data={}))


async def test_transaction_that_fails_leaves_nothing(store: Store) -> None:
    """A block that raises undoes all that it wrote."""

    async def fail() -> None:
        async with store.transaction() as session:
            session.add(EventRow(at=datetime.now(UTC), application=None, kind="k", text="t", data={}))
            await session.flush()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await fail()
    assert await store.events() == []
