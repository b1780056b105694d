"""The module for Eucalyptus does what the conformance suite asks, where nothing is taken that Eucalyptus refuses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.labs.eucalyptus import Gate
from tests.labs.moto import IMAGE, REGION, start_moto
from tests.labs.testbed import services
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import InvalidRequest, Unsupported
from vendor_modules.eucalyptus import EucalyptusModule, EucalyptusSettings
from vendor_modules.resources import Rule

pytestmark = pytest.mark.integration

CHECKS = [
    check
    for check in conformance.checks_for(EucalyptusModule)
    if not re.match(r"(security-group|image)-.*(-name|namesake)|bundle-is-an-image", check.name)
]
"""All but those that ask for the names of security groups and images: what becomes of them is a known limit."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gate, conformance.Subject]]:
    """The gate, and the module behind it."""
    async with start_moto(tmp_path_factory.mktemp("moto")) as moto:
        with Gate(moto.url) as opened:
            settings = EucalyptusSettings.model_validate(
                {
                    "region": REGION,
                    "jurisdiction": "EU",
                    "endpoint": opened.url,
                    "image_owners": ["self", "099720109477"],
                    "block_gib_month": "0.088",
                    "size_prices": {"m1.small": "0.01"},
                }
            )
            known = {"image": IMAGE, "size": "m1.small", "device": "dev/sdf", "volume_mib": 1024}
            yield (
                opened,
                conformance.Subject(EucalyptusModule, settings, moto.credentials, machines_run=False, **known),  # type: ignore[arg-type]
            )


@pytest.fixture(scope="module")
def subject(gate: tuple[Gate, conformance.Subject]) -> conformance.Subject:
    return gate[1]


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(
    check: conformance.Check,
    gate: tuple[Gate, conformance.Subject],
    lender: conformance.Lender,  # noqa: F811
) -> None:
    """The module passes the check, or its capabilities say why it does not apply, and asks for nothing unknown."""
    result = await conformance.run_check(check, gate[1], lender)
    assert result.outcome != "failed", result.reason
    assert gate[0].refused == []


async def test_only_what_is_sold_has_a_price(subject: conformance.Subject) -> None:
    """Sizes are the operator's; their prices are those of the settings, and unknown without one."""
    async with subject.make(services(subject.credentials)) as module:
        sizes = {size.name: size.price_per_hour for size in (await module.catalogue()).sizes}
    assert {name: price and str(price) for name, price in sizes.items()} == {"m1.small": "0.01", "m1.large": None}


async def test_groups_know_no_ipv6(subject: conformance.Subject) -> None:
    """A rule for IPv6 is refused before there is a group."""
    async with subject.make(services(subject.credentials)) as module:
        assert isinstance(module, EucalyptusModule)
        with pytest.raises(Unsupported, match="IPv6"):
            await module.create_security_group("six", (Rule(port=80, cidr="2001:db8::/32"),), key="six")
        assert not [group for group in await module.list_security_groups() if group.key == "six"]


async def test_the_gate_refuses(gate: tuple[Gate, conformance.Subject]) -> None:
    """What Eucalyptus does not know is refused by the gate that stands for it, so that its silence means something."""
    opened, subject = gate
    async with subject.make(services(subject.credentials)) as module:
        assert isinstance(module, EucalyptusModule)
        for parameters in ({"VolumeType": "gp3", "Zebra": "1"}, {"TagSpecification__1__ResourceType": "instance"}):
            with pytest.raises(InvalidRequest, match=r"Failed to bind|tags no instance"):
                await module._run(lambda driver, given=parameters: driver.ask("CreateSnapshot", **given))
    assert len(opened.refused) == 2
    opened.refused.clear()
