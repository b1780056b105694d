"""Security groups, public addresses and private networks: neutron."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network

from vendor_modules.capabilities import Addresses, Networks, SecurityGroups
from vendor_modules.errors import InvalidRequest, NotFound
from vendor_modules.openstack import names
from vendor_modules.openstack.client import NETWORK, Client, Json
from vendor_modules.openstack.cloud import Cloud
from vendor_modules.openstack.errors import Refused
from vendor_modules.openstack.once import once
from vendor_modules.resources import Address, Key, Network, Rule, SecurityGroup, Status

ANYBODY = {4: "0.0.0.0/0", 6: "::/0"}


class Networking(Cloud, SecurityGroups, Addresses, Networks):
    """The network service."""

    # --- security groups ---

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        orders = {rule: _order(rule) for rule in rules}

        def create(client: Client) -> SecurityGroup:
            group = _made(client, "security_group", name, key)
            have, own = set(_group(group).rules), {"security_group_id": group["id"]}
            wanted = [order | own for rule, order in orders.items() if rule not in have]

            def whole() -> bool:
                return orders.keys() <= set(_group(_one(client, "security_group", group["id"])).rules)

            if wanted:
                with _removed_if_refused(client, "security_group", group["id"], whole):
                    client.ask(NETWORK, "POST", "/security-group-rules", {"security_group_rules": wanted})
            return _group(_one(client, "security_group", group["id"]))

        return await self._run(create, key=f"security-group {key}")

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        return await self._run(lambda client: _group(_one(client, "security_group", group_id)))

    async def _list_security_groups(self) -> list[SecurityGroup]:
        return await self._run(lambda client: [_group(group) for group in _own(client, "security_group")])

    async def _destroy_security_group(self, group_id: str) -> None:
        await self._run(lambda client: client.call(NETWORK, "DELETE", _path("security_group", group_id)))

    # --- public addresses ---

    async def _create_address(self, name: str, key: Key) -> Address:
        def create(client: Client) -> Address:
            network = {"floating_network_id": self._external_network(client)}
            return _address(client, _made(client, "floatingip", name, key, network))

        return await self._run(create, key=f"address {key}")

    def _external_network(self, client: Client) -> str:
        """The network that the settings name, else the only external one."""
        params = {"router:external": True}
        if wanted := self.cloud.external_network:
            found = client.find(NETWORK, "/networks", "networks", wanted)
            if found is None:
                raise NotFound(f"there is no network {wanted!r}, which the settings name")
            return str(found["id"])
        external = [network["id"] for network in client.all(NETWORK, "/networks", "networks", params)]
        if len(external) != 1:
            words = f"the cloud has {len(external)} external networks: name one in the settings (external_network)"
            raise InvalidRequest(words)
        return str(external[0])

    async def _describe_address(self, address_id: str) -> Address:
        return await self._run(lambda client: _address(client, _one(client, "floatingip", address_id)))

    async def _list_addresses(self) -> list[Address]:
        return await self._run(lambda client: [_address(client, found) for found in _own(client, "floatingip")])

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        def associate(client: Client) -> None:
            port = _port_of(client, machine_id) if machine_id else None
            client.ask(NETWORK, "PUT", _path("floatingip", address_id), {"floatingip": {"port_id": port}})

        await self._run(associate)

    async def _destroy_address(self, address_id: str) -> None:
        await self._run(lambda client: client.call(NETWORK, "DELETE", _path("floatingip", address_id)))

    # --- private networks ---

    async def _create_network(self, name: str, cidr: str, key: Key) -> Network:
        if _range(cidr).version != 4:
            raise InvalidRequest(f"{cidr!r} is no range of IPv4 addresses")

        def create(client: Client) -> Network:
            network = _made(client, "network", name, key)

            def whole() -> bool:
                return network["id"] in _subnets(client)

            if not whole():
                order = {"network_id": network["id"], "ip_version": 4, "cidr": cidr, "name": names.shown(name)}
                with _removed_if_refused(client, "network", network["id"], whole):
                    client.ask(NETWORK, "POST", "/subnets", {"subnet": order})
            return _network(network, _subnets(client))

        return await self._run(create, key=f"network {key}")

    async def _describe_network(self, network_id: str) -> Network:
        return await self._run(lambda client: _network(_one(client, "network", network_id), _subnets(client)))

    async def _list_networks(self) -> list[Network]:
        def found(client: Client) -> list[Network]:
            subnets = _subnets(client)
            return [_network(network, subnets) for network in _own(client, "network")]

        return await self._run(found)

    async def _destroy_network(self, network_id: str) -> None:
        await self._run(lambda client: client.call(NETWORK, "DELETE", _path("network", network_id)))


# --- what is made, with its key in its description ---


def _plural(kind: str) -> str:
    return f"{kind}s"


def _path(kind: str, identifier: str) -> str:
    return f"/{_plural(kind).replace('_', '-')}/{names.path_part(identifier)}"


def _own(client: Client, kind: str) -> list[Json]:
    """All of the project's own: shared ones and an administrator's view of others' are not."""
    path = f"/{_plural(kind).replace('_', '-')}"
    return list(client.all(NETWORK, path, _plural(kind), {"project_id": client.project}))


def _one(client: Client, kind: str, identifier: str) -> Json:
    found: Json = client.get(NETWORK, _path(kind, identifier))[kind]
    return found


def _made(client: Client, kind: str, name: str, key: Key, values: Json | None = None) -> Json:
    """The resource with that key, made if it is not there."""

    def find() -> list[Json]:
        return [f for f in _own(client, kind) if names.key_in_description(f.get("description")) == key]

    def make() -> Json:
        order = {"description": names.description(key)} | (values or {})
        if kind != "floatingip":  # which have no names
            order["name"] = names.shown(name)
        path = f"/{_plural(kind).replace('_', '-')}"
        return dict(client.ask(NETWORK, "POST", path, {kind: order})[kind])

    there = once(find, make, lambda found: client.call(NETWORK, "DELETE", _path(kind, found["id"])))
    tags = names.tags(name, named=kind != "floatingip")
    if tags and sorted(there.get("tags", ())) != sorted(tags):
        client.ask(NETWORK, "PUT", f"{_path(kind, there['id'])}/tags", {"tags": tags})
        there["tags"] = tags
    return there


@contextmanager
def _removed_if_refused(client: Client, kind: str, identifier: str, whole: Callable[[], bool]) -> Iterator[None]:
    """Remove a resource whose parts are refused, unless it has them all the same: a request may arrive twice. When they
    are not answered, it stays: its key finds it again."""
    try:
        yield
    except Refused:
        if whole():
            return
        client.call(NETWORK, "DELETE", _path(kind, identifier))
        raise


def _named(found: Json) -> dict[str, str]:
    return {
        "id": found["id"],
        "name": names.name_in_tags(found.get("tags", ()), found.get("name", "")),
        "key": names.key_in_description(found.get("description")),
    }


# --- translation ---


def _range(cidr: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(cidr, strict=False)
    except ValueError:
        raise InvalidRequest(f"{cidr!r} is no range of addresses") from None


def _order(rule: Rule) -> Json:
    version = _range(rule.cidr).version
    ports = {"protocol": "tcp", "port_range_min": rule.port, "port_range_max": rule.port}
    place = {"direction": "ingress", "ethertype": f"IPv{version}", "remote_ip_prefix": rule.cidr}
    return place | ports


def _group(found: Json) -> SecurityGroup:
    """Rules that are for other protocols, other groups or several ports have no words here, and are left out."""
    rules = [
        Rule(port=rule["port_range_min"], cidr=rule["remote_ip_prefix"] or ANYBODY[int(rule["ethertype"][-1])])
        for rule in found.get("security_group_rules", ())
        if (rule["direction"], rule["protocol"], rule["remote_group_id"]) == ("ingress", "tcp", None)
        and rule["port_range_min"] is not None
        and rule["port_range_min"] == rule["port_range_max"]
    ]
    return SecurityGroup(
        **_named(found), status=Status.ACTIVE, rules=tuple(sorted(rules, key=lambda rule: (rule.port, rule.cidr)))
    )


def _address(client: Client, found: Json) -> Address:
    machine = None
    if found["port_id"]:
        port = found.get("port_details") or client.get(NETWORK, f"/ports/{found['port_id']}")["port"]
        machine = port.get("device_id") or None
    return Address(**_named(found), status=Status.ACTIVE, host=found["floating_ip_address"], machine=machine)


def _port_of(client: Client, machine_id: str) -> str:
    """The machine's first port with an IPv4 address."""
    for port in client.all(NETWORK, "/ports", "ports", {"device_id": machine_id}):
        if any("." in fixed["ip_address"] for fixed in port["fixed_ips"]):
            return str(port["id"])
    raise NotFound(f"there is no machine {machine_id} with an address in a network")


def _subnets(client: Client) -> dict[str, str]:
    """The IPv4 range of each network."""
    found = client.all(NETWORK, "/subnets", "subnets", {"ip_version": 4})
    return {subnet["network_id"]: subnet["cidr"] for subnet in found}


def _network(found: Json, subnets: dict[str, str]) -> Network:
    status = Status.ACTIVE if found["status"] == "ACTIVE" and found["id"] in subnets else Status.PENDING
    status = Status.ERROR if found["status"] == "ERROR" else status
    return Network(**_named(found), status=status, cidr=subnets.get(found["id"], ""))
