"""EC2's security groups, elastic addresses and networks (VPCs)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element

from vendor_modules.capabilities import Addresses, Networks, SecurityGroups
from vendor_modules.ec2.compute import Ec2Compute
from vendor_modules.ec2.driver import filters, items, only, tagged, tags_of, text
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.labels import KEY, NAME
from vendor_modules.libcloud import Driver
from vendor_modules.resources import Address, Key, MachineSpec, Network, Rule, SecurityGroup, Status

_GONE = {"terminated", "shutting-down"}


class Ec2SecurityGroups(Ec2Compute, SecurityGroups):
    """Groups in the network of the settings' subnet, else in the account's default network."""

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        wanted = [_permission(rule) for rule in rules]  # what is no network is refused before there is a group

        def make(driver: Driver) -> Element:
            made = driver.ask(
                "CreateSecurityGroup",
                GroupName=self._provider_name("security-group", key, name),
                GroupDescription="made by Cloud Agency",
                VpcId=self._vpc(driver),
                **tagged("security-group", **self._tags_for("security-group", key, name)),
            )
            return self._group(driver, text(made, "groupId") or "")

        def create(driver: Driver) -> SecurityGroup:
            group = self._once(lambda: self._groups(driver), lambda: make(driver), lambda _: None, key)
            missing = [one for one, rule in zip(wanted, rules, strict=True) if rule not in _rules(group)]
            if missing:
                params = {f"IpPermissions__{n}__{k}": v for n, one in enumerate(missing, 1) for k, v in one.items()}
                driver.ask("AuthorizeSecurityGroupIngress", GroupId=text(group, "groupId"), **params)
            return self._security_group(self._group(driver, text(group, "groupId") or ""), (key,))

        return await self._run(create, key=f"security-group {key}")

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        keys = await self._keys("security-group")
        return await self._run(lambda driver: self._security_group(self._group(driver, group_id), keys))

    async def _list_security_groups(self) -> list[SecurityGroup]:
        keys = await self._keys("security-group")
        return await self._run(lambda driver: [self._security_group(group, keys) for group in self._groups(driver)])

    async def _destroy_security_group(self, group_id: str) -> None:
        def destroy(driver: Driver) -> None:
            refuse_if_used(driver, {"instance.group-id": group_id}, f"security group {group_id}")
            driver.ask("DeleteSecurityGroup", GroupId=group_id)

        await self._run(destroy)

    def _security_group(self, group: Element, keys: Collection[str]) -> SecurityGroup:
        return SecurityGroup(
            id=text(group, "groupId") or "",
            name=_name(group, "groupName"),
            key=self._key_of(group, keys),
            status=Status.ACTIVE,
            rules=tuple(_rules(group)),
        )

    def _groups(self, driver: Driver) -> list[Element]:
        return list(driver.pages("DescribeSecurityGroups", "securityGroupInfo/item"))

    def _group(self, driver: Driver, group_id: str) -> Element:
        return only(driver.ask("DescribeSecurityGroups", GroupId__1=group_id), "securityGroupInfo/item")

    def _vpc(self, driver: Driver) -> str | None:
        if self._settings.subnet is None:
            return None
        return text(only(driver.ask("DescribeSubnets", SubnetId__1=self._settings.subnet), "subnetSet/item"), "vpcId")


class Ec2Addresses(Ec2Compute, Addresses):
    """Elastic addresses: the whole address leads to the machine."""

    async def _create_address(self, name: str, key: Key) -> Address:
        def make(driver: Driver) -> Element:
            made = driver.ask("AllocateAddress", Domain="vpc", **tagged("elastic-ip", {KEY: key, NAME: name}))
            return _known_address(driver, text(made, "allocationId") or "")

        def create(driver: Driver) -> Address:
            release = partial(_release, driver)
            return _address(self._once(driver.addresses, lambda: make(driver), release, key))

        return await self._run(create, key=f"address {key}")

    async def _describe_address(self, address_id: str) -> Address:
        return await self._run(lambda driver: _address(_known_address(driver, address_id)))

    async def _list_addresses(self) -> list[Address]:
        return await self._run(lambda driver: [_address(found) for found in driver.addresses()])

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        def associate(driver: Driver) -> None:
            found = _known_address(driver, address_id)
            if machine_id is None:
                _free(driver, found)
            elif text(found, "instanceId") != machine_id:
                node = self._node(driver, machine_id)
                if self._status_of(node) is None:
                    raise NotFound(f"there is no machine {machine_id!r}")
                driver.ask(
                    "AssociateAddress", AllocationId=address_id, InstanceId=machine_id, AllowReassociation="true"
                )

        await self._run(associate, key=f"address {address_id}")

    async def _destroy_address(self, address_id: str) -> None:
        await self._run(lambda driver: _release(driver, _known_address(driver, address_id)))


class Ec2Networks(Ec2Compute, Networks):
    """Networks: a VPC with one subnet over all of its range. No way leads out of it."""

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        if not spec.networks:
            return arguments
        if len(spec.networks) > 1:
            raise InvalidRequest("an EC2 machine is in one network")
        subnets = _subnets(driver, spec.networks[0])
        if not subnets:
            raise NotFound(f"network {spec.networks[0]!r} is not there, or has no subnet")
        return arguments | {"SubnetId": text(subnets[0], "subnetId")}

    async def _create_network(self, name: str, cidr: str, key: Key) -> Network:
        _checked(cidr)
        tags = tagged("vpc", {KEY: key, NAME: name})

        def create(driver: Driver) -> Network:
            vpc = self._once(
                lambda: driver.pages("DescribeVpcs", "vpcSet/item"),
                lambda: items(driver.ask("CreateVpc", CidrBlock=cidr, **tags), "vpc")[0],
                lambda vpc: _delete_network(driver, text(vpc, "vpcId") or ""),
                key,
            )
            vpc_id = text(vpc, "vpcId") or ""
            if not _subnets(driver, vpc_id):
                driver.ask("CreateSubnet", VpcId=vpc_id, CidrBlock=cidr, AvailabilityZone=self._settings.zone)
            return _network(_vpc(driver, vpc_id), ready=True)

        return await self._run(create, key=f"network {key}")

    async def _describe_network(self, network_id: str) -> Network:
        def describe(driver: Driver) -> Network:
            return _network(_vpc(driver, network_id), ready=bool(_subnets(driver, network_id)))

        return await self._run(describe)

    async def _list_networks(self) -> list[Network]:
        def networks(driver: Driver) -> list[Network]:
            with_subnets = {text(subnet, "vpcId") for subnet in driver.pages("DescribeSubnets", "subnetSet/item")}
            found = driver.pages("DescribeVpcs", "vpcSet/item")
            return [_network(vpc, ready=text(vpc, "vpcId") in with_subnets) for vpc in found]

        return await self._run(networks)

    async def _destroy_network(self, network_id: str) -> None:
        def destroy(driver: Driver) -> None:
            _vpc(driver, network_id)
            refuse_if_used(driver, {"vpc-id": network_id}, f"network {network_id}")
            _delete_network(driver, network_id)

        await self._run(destroy)


def refuse_if_used(driver: Driver, used: dict[str, str], what: str) -> None:
    """:class:`~vendor_modules.errors.Conflict` if there are machines with these values."""
    for node in driver.list_nodes(ex_filters=used):
        if node.extra["status"] not in _GONE:
            raise Conflict(f"{what} is used by machine {node.id}")


def _name(element: Element, otherwise: str) -> str:
    tags = tags_of(element)
    return tags.get(NAME) or tags.get("Name") or text(element, otherwise) or ""


def _rules(group: Element) -> list[Rule]:
    rules = [
        Rule(port=int(text(permission, "fromPort") or 0), cidr=cidr)
        for permission in items(group, "ipPermissions/item")
        if (text(permission, "ipProtocol") == "tcp" and text(permission, "fromPort") == text(permission, "toPort"))
        for cidr in _networks_of(permission)
    ]
    return sorted(rules, key=lambda rule: (rule.port, rule.cidr))


def _networks_of(permission: Element) -> list[str]:
    four = [text(one, "cidrIp") for one in items(permission, "ipRanges/item")]
    six = [text(one, "cidrIpv6") for one in items(permission, "ipv6Ranges/item")]
    return [cidr for cidr in four + six if cidr]


def _permission(rule: Rule) -> dict[str, str | int]:
    network = _checked(rule.cidr)
    ranges = "IpRanges__1__CidrIp" if network.version == 4 else "Ipv6Ranges__1__CidrIpv6"
    return {"IpProtocol": "tcp", "FromPort": rule.port, "ToPort": rule.port, ranges: rule.cidr}


def _checked(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(cidr)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def _known_address(driver: Driver, address_id: str) -> Element:
    found = driver.addresses(AllocationId__1=address_id)
    if not found:
        raise NotFound(f"there is no address {address_id!r}")
    element: Element = found[0]
    return element


def _free(driver: Driver, address: Element) -> None:
    if association := text(address, "associationId"):
        driver.ask("DisassociateAddress", AssociationId=association)


def _release(driver: Driver, address: Element) -> None:
    _free(driver, address)
    driver.ask("ReleaseAddress", AllocationId=text(address, "allocationId"))


def _address(address: Element) -> Address:
    return Address(
        id=text(address, "allocationId") or text(address, "publicIp") or "",
        name=_name(address, "publicIp"),
        key=tags_of(address).get(KEY, ""),
        status=Status.ACTIVE,
        host=text(address, "publicIp") or "",
        machine=text(address, "instanceId"),
    )


def _vpc(driver: Driver, vpc_id: str) -> Element:
    return only(driver.ask("DescribeVpcs", VpcId__1=vpc_id), "vpcSet/item")


def _subnets(driver: Driver, vpc_id: str) -> list[Element]:
    return list(driver.pages("DescribeSubnets", "subnetSet/item", **filters({"vpc-id": vpc_id})))


def _delete_network(driver: Driver, vpc_id: str) -> None:
    for subnet in _subnets(driver, vpc_id):
        driver.ask("DeleteSubnet", SubnetId=text(subnet, "subnetId"))
    driver.ask("DeleteVpc", VpcId=vpc_id)


def _network(vpc: Element, *, ready: bool) -> Network:
    return Network(
        id=text(vpc, "vpcId") or "",
        name=_name(vpc, "vpcId"),
        key=tags_of(vpc).get(KEY, ""),
        status=Status.ACTIVE if ready and text(vpc, "state") == "available" else Status.PENDING,
        cidr=text(vpc, "cidrBlock") or "",
    )
