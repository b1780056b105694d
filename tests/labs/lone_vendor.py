"""A Vendor agent that runs alone, as a client of an XMPP server: a process that tests may kill.

``python -m tests.labs.lone_vendor DOMAIN HOST PORT CA NAME``, the password on standard input; it ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pydantic import SecretStr

from agency.agents import addresses
from agency.federation.registering import stay_registered
from agency.messaging.agent import RoleAgent
from agency.messaging.links.client import client_link
from agency.signals import stopped
from tests.agency.toys import Cloud, toy_module


async def main(domain: str, host: str, port: str, ca: str, name: str) -> None:
    """Be in the directory until told to stop."""
    secret = SecretStr(sys.stdin.readline().strip())

    async def password(_: str) -> SecretStr:
        return secret

    async with client_link(domain, (host, int(port)), Path(ca), password) as link:
        agent = RoleAgent(link.address(addresses.vendor(name)), link)
        await agent.start()
        agent.work(stay_registered(agent, link.address(addresses.DIRECTORY), toy_module(Cloud(name=name))))
        await stopped()
        await agent.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
