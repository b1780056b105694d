"""The ejabberd of a benchmark: as `agency server init` sets it up, with more components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from pydantic import SecretStr

from agency.servers.accounts import _at_ejabberd
from agency.servers.running import reserved_ports

DOMAINS = ("vendors.a.test", "floor-broker.a.test", "floor-vendors.a.test")
"""Components of the server beside that of its agency, which is the broker's."""


@contextmanager
def server_with(domains: Sequence[str]) -> Iterator[tuple[Any, dict[str, int]]]:
    """A running server for a.test with these components, too; gives it, and the ports of all components by domain."""
    from tests.labs.xmpp import server_set_up

    with server_set_up("ejabberd") as server, reserved_ports(len(domains)) as numbers:
        ports = dict(zip(domains, numbers, strict=True))
        file = server.directory / "ejabberd.yml"
        configuration = yaml.safe_load(file.read_text())
        service = next(each for each in configuration["listen"] if each["module"] == "ejabberd_service")
        for domain, port in ports.items():
            hosts = {domain: {"password": server.secret}}
            configuration["listen"].append(service | {"port": port, "hosts": hosts})
        file.write_text(yaml.safe_dump(configuration))
        server.start()
        yield server, {**ports, server.agents: server.component[1]}


def accounts(server: Any, names: Iterable[str], password: str) -> None:
    """Make accounts at it, without keeping their password anywhere."""
    for name in names:
        _at_ejabberd(server.directory, name, server.domain, SecretStr(password))
