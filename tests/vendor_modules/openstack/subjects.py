"""The OpenStack module as the tests use it at the lab's clouds."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from pydantic import SecretStr

from descriptors.machine import MachineManifest
from tests.labs.openstack.fixtures import Account
from tests.labs.testbed import services
from vendor_modules import conformance
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT, MARKER
from vendor_modules.openstack.client import Dialect
from vendor_modules.openstack.module import OpenStackModule
from vendor_modules.openstack.settings import OpenStackSettings
from vendor_modules.resources import UserData
from vendor_modules.services.credentials import PasswordCredentials

GUEST = UserData(
    files={"program.sh": f"echo {MARKER}; sleep 100000\n".encode(), GREETING: GREETING_TEXT},
    manifest=MachineManifest(start="sh program.sh"),
)
"""The lab's guest has a shell, and no Python."""
FLAVOUR = "m1.nano"


class FewAtOnce(OpenStackModule):
    """The module, asking for short pages: the lab's accounts may hold few of a kind."""

    dialect: ClassVar[Dialect] = Dialect(page=3)


def settings_of(account: Account) -> OpenStackSettings:
    """The settings for an account of the lab's."""
    return OpenStackSettings(
        auth_url=account.auth_url,
        project=account.project,
        region=account.region,
        prices={FLAVOUR: Decimal("0.01")},
        block_gib_month=Decimal("0.05"),
        object_gib_month=Decimal("0.02"),
    )


def module_of(account: Account, module: type[OpenStackModule] = OpenStackModule, **changes: object) -> OpenStackModule:
    """The module for an account of the lab's, with other settings as given; close it by ``async with``."""
    settings = settings_of(account).model_copy(update=changes)
    return module("cloud", settings, services(credentials_of(account)))


def credentials_of(account: Account) -> PasswordCredentials:
    """What the account logs in with."""
    return PasswordCredentials(username=account.username, password=SecretStr(account.password))


def subject_of(name: str, account: Account, image: str) -> conformance.Subject:
    """What the conformance suite examines; ``image`` is the lab's guest."""
    return conformance.Subject(
        FewAtOnce,
        settings_of(account),
        credentials_of(account),
        vendor=name,
        image=image,
        size=FLAVOUR,
        user_data=GUEST,
        patience=3.0,
        page_size=FewAtOnce.dialect.page,
        volume_mib=1024,
    )
