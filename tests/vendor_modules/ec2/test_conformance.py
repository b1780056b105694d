"""The EC2 module does what the conformance suite asks, at moto's server: as far as machines that run nothing can show.

A name of 255 letters and all of Unicode go through tags; prices come from the catalogue that the project ships.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from tests.labs.moto import IMAGE, REGION, start_moto
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.ec2.compute import Ec2Settings
from vendor_modules.ec2.module import Ec2Module
from vendor_modules.module import VendorModule
from vendor_modules.services import Services
from vendor_modules.services.prices import CataloguePrices, Prices


class Ec2(Ec2Module):
    """With pages as small as EC2 gives them, so that there are some."""

    page = 5


@dataclass(frozen=True)
class Priced(conformance.Subject):
    """A subject whose modules know the price catalogue, as in an agency."""

    known: Prices | None = None

    def make(self, services: Services) -> VendorModule:
        """See the base."""
        return super().make(replace(services, prices=self.known))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def subject(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Priced]:
    folder = tmp_path_factory.mktemp("moto")
    async with start_moto(folder) as moto:
        settings = Ec2Settings(
            region=REGION,
            jurisdiction="EU",
            endpoint=moto.url,
            image_owners=("self", "099720109477"),
            block_gib_month="0.088",
            object_gib_month="0.023",
        )
        yield Priced(
            Ec2,
            settings,
            moto.credentials,
            image=IMAGE,
            size="t3.micro",
            device="dev/sdf",
            volume_mib=1024,
            page_size=5,
            machines_run=False,
            known=CataloguePrices(folder),
        )


@pytest.mark.integration
@pytest.mark.parametrize("check", conformance.checks_for(Ec2), ids=str)
async def test_conformance(check: conformance.Check, subject: Priced, lender: conformance.Lender) -> None:  # noqa: F811
    """The module passes the check, or its capabilities say why it does not apply."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason
