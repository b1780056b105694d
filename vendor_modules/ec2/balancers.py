"""Network load balancers of EC2 (ELB version 2): a listener, and a target group of machines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from xml.etree.ElementTree import Element

from vendor_modules.capabilities import LoadBalancers
from vendor_modules.ec2.compute import Amazon
from vendor_modules.ec2.driver import AwsConnection, Ec2Driver, filters, items, numbered, text
from vendor_modules.errors import Conflict, NotFound
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import Driver, account
from vendor_modules.resources import Key, LoadBalancer, Status
from vendor_modules.services.credentials import Credentials
from vendor_modules.userdata import PORT

_STATES = {"active": Status.ACTIVE, "failed": Status.ERROR, "active_impaired": Status.ACTIVE}
_ARN = re.compile(r"^arn:.*:loadbalancer/[a-z]+/(?P<name>[^/]+)/[^/]+$")
_AT_ONCE = 20
"""Balancers whose tags are asked for in one call."""


class _Connection(AwsConnection):
    version = "2015-12-01"
    service_name = "elasticloadbalancing"


class ElbDriver(Ec2Driver):
    """Not EC2's interface, but asked in the same way."""

    connectionCls = _Connection  # noqa: N815 - libcloud's name

    def found(self, action: str, list_name: str, **params: Any) -> list[Element]:
        """The elements of a list, in all pages."""
        elements: list[Element] = []
        marker: str | None = None
        while True:
            result = f"{action}Result"
            answer = self.ask(action, Marker=marker, **params)
            elements += items(answer, f"{result}/{list_name}/member")
            marker = text(answer, f"{result}/NextMarker")
            if not marker:
                return elements


class Ec2LoadBalancers(Amazon, LoadBalancers):
    """Load balancers in the settings' subnet, else in the default subnets; to the port of machines' services."""

    def _connect_balancers(self, credentials: Credentials) -> ElbDriver:
        url = self._url("elasticloadbalancing")
        return ElbDriver(*account(credentials), url=url, region=self._settings.region)

    async def _create_load_balancer(self, name: str, port: int, machines: tuple[str, ...], key: Key) -> LoadBalancer:
        subnets, vpc = await self._run(self._place)
        for machine in machines:
            await self._describe_machine(machine)
        called = name_for(key, name, longest=32)
        tags = {"Tags__member__1__Key": KEY, "Tags__member__1__Value": key}
        parts = [name.encode().hex()[start : start + 250] for start in range(0, len(name.encode()) * 2, 250)]
        for number, part in enumerate(parts, 2):
            tags[f"Tags__member__{number}__Key"] = f"{NAME}-{number - 2}"
            tags[f"Tags__member__{number}__Value"] = part

        def make(driver: ElbDriver) -> Element:
            answer = driver.ask(
                "CreateLoadBalancer", Name=called, Type="network", **numbered("Subnets__member", subnets), **tags
            )
            return items(answer, "CreateLoadBalancerResult/LoadBalancers/member")[0]

        def found(driver: ElbDriver) -> Element | None:
            tagged = _with_tags(driver, _balancers(driver))
            mine = [balancer for balancer, tags in tagged if tags.get(KEY) == key]
            for other in mine[1:]:  # the order was delivered twice
                driver.ask("DeleteLoadBalancer", LoadBalancerArn=text(other, "LoadBalancerArn"))
            return mine[0] if mine else None

        def create(driver: ElbDriver) -> LoadBalancer:
            arn = text(_made(lambda: found(driver), lambda: make(driver)), "LoadBalancerArn") or ""
            group = _made(
                lambda: next(iter(_groups(driver, Names__member__1=called)), None),
                lambda: items(
                    driver.ask("CreateTargetGroup", Name=called, Protocol="TCP", Port=PORT, VpcId=vpc),
                    "CreateTargetGroupResult/TargetGroups/member",
                )[0],
            )
            group_arn = text(group, "TargetGroupArn") or ""
            if not driver.found("DescribeListeners", "Listeners", LoadBalancerArn=arn):
                forward = {"DefaultActions__member__1__Type": "forward"}
                forward["DefaultActions__member__1__TargetGroupArn"] = group_arn
                driver.ask("CreateListener", LoadBalancerArn=arn, Protocol="TCP", Port=port, **forward)
            _lead(driver, group_arn, machines)
            return _one(driver, arn)

        return await self._run(create, key=f"load-balancer {key}", connect=self._connect_balancers)

    def _place(self, driver: Driver) -> tuple[list[str], str]:
        settings = self._settings
        asked = {"SubnetId__1": settings.subnet} if settings.subnet else filters({"default-for-az": "true"})
        found = items(driver.ask("DescribeSubnets", **asked), "subnetSet/item")
        if not found:
            raise NotFound("there is no default subnet: name one in the vendor's settings")
        return [text(subnet, "subnetId") or "" for subnet in found], text(found[0], "vpcId") or ""

    async def _describe_load_balancer(self, balancer_id: str) -> LoadBalancer:
        return await self._run(lambda driver: _one(driver, balancer_id), connect=self._connect_balancers)

    async def _list_load_balancers(self) -> list[LoadBalancer]:
        def balancers(driver: ElbDriver) -> list[LoadBalancer]:
            listed = []
            for found, tags in _with_tags(driver, _balancers(driver)):
                with suppress(NotFound):  # gone since
                    listed.append(_balancer(driver, found, tags))
            return listed

        return await self._run(balancers, connect=self._connect_balancers)

    async def _balance(self, balancer_id: str, machines: tuple[str, ...]) -> None:
        for machine in machines:
            await self._describe_machine(machine)

        def balance(driver: ElbDriver) -> None:
            _known(driver, balancer_id)
            for group in _groups(driver, LoadBalancerArn=balancer_id):
                _lead(driver, text(group, "TargetGroupArn") or "", machines)

        await self._run(balance, key=f"balance {balancer_id}", connect=self._connect_balancers)

    async def destroy_load_balancer(self, balancer_id: str) -> None:
        """See the base; returns when the balancer's target group is gone, too."""
        await self._destroy("load-balancer", balancer_id, self._destroy_load_balancer, self._what_is_left)

    async def _destroy_load_balancer(self, balancer_id: str) -> None:
        def destroy(driver: ElbDriver) -> None:
            with suppress(NotFound):  # gone already, but its target group may be there
                _known(driver, balancer_id)
                driver.ask("DeleteLoadBalancer", LoadBalancerArn=balancer_id)

        await self._run(destroy, connect=self._connect_balancers)

    async def _what_is_left(self, balancer_id: str) -> LoadBalancer:
        """The balancer until it and its target group are gone. A group is in use until its balancer is gone, which
        takes a while after DeleteLoadBalancer."""

        def left(driver: ElbDriver) -> LoadBalancer:
            with suppress(NotFound):
                return _one(driver, balancer_id)
            for group in _orphans(driver, balancer_id):
                try:
                    driver.ask("DeleteTargetGroup", TargetGroupArn=text(group, "TargetGroupArn"))
                except Conflict:
                    name = text(group, "TargetGroupName") or ""
                    return LoadBalancer(id=balancer_id, name=name, key="", status=Status.PENDING, host="", port=PORT)
            raise NotFound(f"there is no load balancer {balancer_id!r}")

        return await self._run(left, connect=self._connect_balancers)


def _balancers(driver: ElbDriver) -> list[Element]:
    return driver.found("DescribeLoadBalancers", "LoadBalancers")


def _groups(driver: ElbDriver, **params: str) -> list[Element]:
    try:
        return driver.found("DescribeTargetGroups", "TargetGroups", **params)
    except NotFound:  # so some say that there are none
        return []


def _orphans(driver: ElbDriver, balancer_id: str) -> list[Element]:
    """The target group of a balancer that is gone: it has the balancer's name, which is in the balancer's ARN too.
    None if a new balancer has that name, or another one uses the group."""
    arn = _ARN.search(balancer_id)
    if not arn:
        return []
    with suppress(NotFound):
        named = driver.found("DescribeLoadBalancers", "LoadBalancers", Names__member__1=arn["name"])
        if any(text(other, "LoadBalancerArn") != balancer_id for other in named):
            return []
    groups = _groups(driver, Names__member__1=arn["name"])
    return [g for g in groups if {user.text for user in items(g, "LoadBalancerArns/member")} <= {balancer_id}]


def _made(found: Callable[[], Element | None], create: Callable[[], Element]) -> Element:
    """What is found, else what is made; found again where something delivered the order twice."""
    known = found()
    if known is not None:
        return known
    try:
        return create()
    except Conflict:
        known = found()
        if known is None:
            raise
        return known


def _with_tags(driver: ElbDriver, balancers: list[Element]) -> Iterator[tuple[Element, dict[str, str]]]:
    by_arn = {text(balancer, "LoadBalancerArn") or "": balancer for balancer in balancers}
    arns = list(by_arn)
    for start in range(0, len(arns), _AT_ONCE):
        for told in _tags(driver, arns[start : start + _AT_ONCE]):
            tags = {text(tag, "Key") or "": text(tag, "Value") or "" for tag in items(told, "Tags/member")}
            yield by_arn[text(told, "ResourceArn") or ""], tags


def _tags(driver: ElbDriver, arns: list[str]) -> list[Element]:
    try:
        return driver.found("DescribeTags", "TagDescriptions", **numbered("ResourceArns__member", arns))
    except NotFound:  # one of them is gone since
        return [told for arn in arns for told in _tags(driver, [arn])] if len(arns) > 1 else []


def _known(driver: ElbDriver, balancer_id: str) -> Element:
    if not balancer_id.startswith("arn:"):
        raise NotFound(f"there is no load balancer {balancer_id!r}")
    found = driver.found("DescribeLoadBalancers", "LoadBalancers", LoadBalancerArns__member__1=balancer_id)
    if not found:
        raise NotFound(f"there is no load balancer {balancer_id!r}")
    return found[0]


def _one(driver: ElbDriver, balancer_id: str) -> LoadBalancer:
    for found, tags in _with_tags(driver, [_known(driver, balancer_id)]):
        return _balancer(driver, found, tags)
    raise NotFound(f"there is no load balancer {balancer_id!r}")


def _balancer(driver: ElbDriver, found: Element, tags: dict[str, str]) -> LoadBalancer:
    arn = text(found, "LoadBalancerArn") or ""
    listeners = driver.found("DescribeListeners", "Listeners", LoadBalancerArn=arn)
    groups = _groups(driver, LoadBalancerArn=arn)
    state = _STATES.get(text(found, "State/Code") or "", Status.PENDING)
    encoded = "".join(tags.get(f"{NAME}-{number}", "") for number in range(len(tags)))
    return LoadBalancer(
        id=arn,
        name=bytes.fromhex(encoded).decode() if encoded else text(found, "LoadBalancerName") or "",
        key=tags.get(KEY, ""),
        status=state if listeners else Status.PENDING,
        host=text(found, "DNSName") or "",
        port=int(text(listeners[0], "Port") or 1) if listeners else 1,
        machines=tuple(sorted(m for group in groups for m in _targets(driver, text(group, "TargetGroupArn") or ""))),
    )


def _targets(driver: ElbDriver, group: str) -> list[str]:
    answer = driver.ask("DescribeTargetHealth", TargetGroupArn=group)
    found = items(answer, "DescribeTargetHealthResult/TargetHealthDescriptions/member")
    leaving = {"draining", "unused.deregistered"}
    return [text(t, "Target/Id") or "" for t in found if text(t, "TargetHealth/State") not in leaving]


def _lead(driver: ElbDriver, group: str, machines: tuple[str, ...]) -> None:
    """To these machines, and no others."""
    there = set(_targets(driver, group))
    for action, ids in (("RegisterTargets", set(machines) - there), ("DeregisterTargets", there - set(machines))):
        if ids:
            targets = {f"Targets__member__{number}__Id": one for number, one in enumerate(sorted(ids), 1)}
            driver.ask(action, TargetGroupArn=group, **targets)
