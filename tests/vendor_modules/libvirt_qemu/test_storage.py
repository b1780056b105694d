"""Files of a pool that several use at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.labs.libvirt import Libvirt
from vendor_modules.libvirt_qemu.connection import Connection
from vendor_modules.libvirt_qemu.storage import Record, Storage, id_for

LISTS = 3


@pytest.mark.integration
def test_lists_keep_nobody_from_changing_what_they_read(lab: Libvirt) -> None:
    """While three read all records over and over, volumes are made and destroyed as if nobody looked."""
    done = threading.Event()

    def storage(connection: Connection) -> Storage:
        return Storage(connection.to(lab.credentials), lab.settings.pool)

    def look(connection: Connection) -> int:
        looks = 0
        while not done.is_set():
            list(storage(connection).records("volume"))
            looks += 1
        return looks

    def fill(file: str) -> int:
        ours.make(file, 4096)
        return 4096

    connections = [Connection(lab.settings.uri) for _ in range(LISTS + 1)]
    ours = storage(connections[-1])
    with ThreadPoolExecutor(LISTS) as pool:
        lists = [pool.submit(look, each) for each in connections[:LISTS]]
        try:
            for key in map(str, range(60)):
                ours.create(id_for("volume", key), Record(key=key, name="v", size=4096), fill)
                ours.destroy(id_for("volume", key))
        finally:
            done.set()
        assert all(each.result() for each in lists)
    assert not list(ours.records("volume"))
    for each in connections:
        each.close()
