"""Load balancers, on a real cloud."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.labs.testbed import start_cloud
from tests.vendor_modules.testbed.helpers import get, machine
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from vendor_modules.resources import LoadBalancer, Machine, Status
from vendor_modules.testbed.module import TestbedModule

pytestmark = pytest.mark.integration


async def machines(cloud: TestbedModule, count: int) -> list[Machine]:
    """So many machines, each of which serves its own number."""
    orders = (machine(files={"who": str(n).encode()}) for n in range(count))
    return [await cloud.create_machine(order, key=f"m{n}") for n, order in enumerate(orders)]


async def balanced(cloud: TestbedModule, *behind: Machine, key: str = "b") -> LoadBalancer:
    """A load balancer for these machines, at a port that is free."""
    return await cloud.create_load_balancer("www", free_port(), [one.id for one in behind], key=key)


def free_port() -> int:
    """A port that nobody listens at now. A load balancer has an address of its own, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def answers(balancer: LoadBalancer, count: int) -> Counter[str]:
    """Which machines answer so many requests, and how often."""
    return Counter([(await get(balancer.host, balancer.port, "/who")).text for _ in range(count)])


async def refused(balancer: LoadBalancer) -> None:
    """Assert that a connection to the load balancer gets nowhere."""
    with pytest.raises(httpx.TransportError):
        await get(balancer.host, balancer.port)


async def test_connections_are_shared_out_evenly(cloud: TestbedModule) -> None:
    """Each running machine gets as many connections as the others: one that is stopped or destroyed gets none, and from
    the moment it is told the load balancer leads to the machines named, and to no others."""
    behind = await machines(cloud, 3)
    balancer = await balanced(cloud, *behind)
    assert balancer.machines == tuple(one.id for one in behind)
    assert await answers(balancer, 6) == {"0": 2, "1": 2, "2": 2}
    await cloud.stop_machine(behind[0].id)
    assert await answers(balancer, 4) == {"1": 2, "2": 2}
    await cloud.start_machine(behind[0].id)
    await cloud.destroy_machine(behind[1].id)
    assert (await cloud.describe_load_balancer(balancer.id)).machines == (behind[0].id, behind[2].id)
    assert await answers(balancer, 4) == {"0": 2, "2": 2}
    assert (await cloud.balance(balancer.id, [behind[2].id])).machines == (behind[2].id,)
    assert await answers(balancer, 3) == {"2": 3}
    assert (await cloud.balance(balancer.id, [])).machines == ()
    await refused(balancer)


async def test_a_machine_that_does_not_answer_is_passed_over(cloud: TestbedModule) -> None:
    """A machine that runs, but has no service that listens, costs no connection."""
    [serving] = await machines(cloud, 1)
    silent = await cloud.create_machine(machine(None), key="silent")
    balancer = await balanced(cloud, silent, serving)
    assert await answers(balancer, 4) == {"0": 4}


async def test_a_load_balancer_has_the_port_that_was_asked_for(cloud: TestbedModule) -> None:
    """Two load balancers can have the same port: each has an address of its own, in the loopback network."""
    [serving] = await machines(cloud, 1)
    port = free_port()
    one, two = [await cloud.create_load_balancer("b", port, [serving.id], key=key) for key in "ab"]
    assert (one.port, two.port) == (port, port)
    assert one.host != two.host
    for balancer in one, two:
        assert balancer.host.startswith("127.")
        assert await answers(balancer, 1) == {"0": 1}
    await cloud.destroy_load_balancer(one.id)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(one.host, one.port)
    assert await answers(two, 1) == {"0": 1}


async def test_a_port_that_is_taken_is_a_conflict(cloud: TestbedModule) -> None:
    """Where another program listens at a port of all addresses, the load balancer is refused and not left behind."""
    with socket.create_server(("0.0.0.0", 0)) as other, pytest.raises(Conflict, match="another program"):
        await cloud.create_load_balancer("b", other.getsockname()[1], [], key="b")
    assert await cloud.list_load_balancers() == []


async def test_wrong_orders_are_refused(cloud: TestbedModule) -> None:
    """Machines that are not there or named twice, and ports that are none, are refused, and nothing changes."""
    [serving] = await machines(cloud, 1)
    balancer = await balanced(cloud, serving)
    for call, kind in (
        (lambda: cloud.create_load_balancer("b", 8080, ["machine-0"], key="c"), NotFound),
        (lambda: cloud.create_load_balancer("b", 0, [], key="c"), InvalidRequest),
        (lambda: cloud.create_load_balancer("b", 8080, [serving.id] * 2, key="c"), InvalidRequest),
        (lambda: cloud.balance(balancer.id, ["machine-0"]), NotFound),
        (lambda: cloud.balance(balancer.id, [serving.id] * 2), InvalidRequest),
        (lambda: cloud.balance("balancer-0", []), NotFound),
    ):
        with pytest.raises(kind):
            await call()
    assert await cloud.list_load_balancers() == [balancer]


async def test_load_balancers_are_made_once(cloud: TestbedModule) -> None:
    """Concurrent duplicates make one load balancer."""
    port = free_port()
    made = await asyncio.gather(*(cloud.create_load_balancer("b", port, [], key="b") for _ in range(4)))
    assert len(set(made)) == len(await cloud.list_load_balancers()) == 1


async def test_connections_to_machines_that_leave_are_cut(cloud: TestbedModule) -> None:
    """An open connection ends when its machine is taken out or stopped; until then it stays."""
    hold = (
        b"import os, socket\n"
        b"server, kept = socket.create_server((os.environ['HOST'], int(os.environ['PORT']))), []\n"
        b"while True:\n"
        b"    kept.append(server.accept()[0])\n"
        b"    kept[-1].send(b'held')\n"
    )
    orders = [machine("python3 hold.py", files={"hold.py": hold}) for _ in range(2)]
    behind = [await cloud.create_machine(order, key=f"m{n}") for n, order in enumerate(orders)]
    balancer = await balanced(cloud, *behind)
    open_ = [await asyncio.open_connection(balancer.host, balancer.port) for _ in behind]
    assert [await reader.readexactly(4) for reader, _ in open_] == [b"held", b"held"]
    await cloud.balance(balancer.id, [behind[0].id])
    await ended(open_[1][0])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(open_[0][0].read(1), 0.1)
    await cloud.stop_machine(behind[0].id)
    await ended(open_[0][0])
    for _, writer in open_:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> None:
    """Assert that the connection ends."""
    async with asyncio.timeout(30):
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_egress_is_metered(cloud: TestbedModule) -> None:
    """What leaves by a load balancer is in the usage, as GiB of egress, until it is removed."""
    serving = await cloud.create_machine(machine(files={"f": b"x" * 300_000}), key="m")
    balancer = await balanced(cloud, serving)
    await get(balancer.host, balancer.port, "/f")
    await cloud.destroy_load_balancer(balancer.id)
    [record] = [record for record in await cloud.usage() if record.resource == balancer.id]
    assert (record.unit, record.kind) == ("GiB", "load-balancer")
    assert record.ended
    assert 300_000 < float(record.quantity) * 1024**3 < 310_000


async def test_load_balancers_have_a_quota(tmp_path: Path) -> None:
    """More load balancers than the account may have are refused."""
    async with start_cloud(tmp_path, quotas={"load_balancers": 1}) as own:
        await balanced(own.module)
        with pytest.raises(QuotaExceeded, match="1 load balancers"):
            await balanced(own.module, key="c")


async def test_load_balancers_survive_a_killed_cloud(tmp_path: Path) -> None:
    """After kill -9 a load balancer is where it was, and leads to its machines again; one whose port was taken
    meanwhile says so, and is back when the port is free."""
    async with start_cloud(tmp_path) as own:
        behind = await machines(own.module, 2)
        balancer = await balanced(own.module, *behind)
        await own.kill()
        await own.restart()
        for one in behind:
            await own.module.wait_for_machine(one.id, Status.ACTIVE)
        assert await own.module.describe_load_balancer(balancer.id) == balancer
        assert await answers(balancer, 4) == {"0": 2, "1": 2}
        await own.stop()
        with socket.create_server((balancer.host, balancer.port)):
            await own.restart()
            assert (await own.module.describe_load_balancer(balancer.id)).status is Status.ERROR
            await own.stop()
        await own.restart()
        assert (await own.module.describe_load_balancer(balancer.id)).status is Status.ACTIVE
