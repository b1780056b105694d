"""The Vendor Module of Rackspace's public cloud: OpenStack's APIs of its early years, and a login of its own.

What is not OpenStack there is left out: block storage speaks version 1 of its API only, machines have public addresses
of their own instead of floating ones, and images go in and out by way of the object store.
"""

from __future__ import annotations

from typing import Any, ClassVar

from keystoneauth1.identity import v2
from pydantic import AnyHttpUrl

from descriptors.application import Label
from descriptors.base import Currency
from vendor_modules.module import Proof
from vendor_modules.openstack.client import COMPUTE, Client, Dialect, Plugin
from vendor_modules.openstack.compute import Compute
from vendor_modules.openstack.images import ImageList
from vendor_modules.openstack.objects import ObjectStore
from vendor_modules.openstack.reports import Figures
from vendor_modules.openstack.settings import OpenStackSettings
from vendor_modules.services.credentials import AccessKeyCredentials, Credentials, resolve


class RackspaceSettings(OpenStackSettings):
    """Which of Rackspace's regions to use, and its prices."""

    auth_url: AnyHttpUrl = AnyHttpUrl("https://identity.api.rackspacecloud.com/v2.0")
    """The identity service's URL; London has one of its own, ``https://lon.identity.api.rackspacecloud.com/v2.0``."""
    region: Label = "DFW"
    """Where to make everything: DFW, ORD, IAD, LON, SYD or HKG."""
    jurisdiction: Label = "US"
    """Whose law the region is under."""
    currency: Currency = "USD"
    """Of all prices here."""


class ApiKey(v2.Auth):
    """A login with a user name and an API key: Rackspace's extension RAX-KSKEY of the identity API 2.0."""

    def __init__(self, auth_url: str, username: str, key: str) -> None:
        super().__init__(auth_url)
        self._account = {"username": username, "apiKey": key}

    def get_auth_data(self, headers: Any = None) -> dict[str, Any]:
        """What is sent in place of a password."""
        return {"RAX-KSKEY:apiKeyCredentials": self._account}

    def get_cache_id_elements(self) -> dict[str, Any]:
        """What tells one login from another."""
        return {"auth_url": self.auth_url, "username": self._account["username"]}


class RackspaceModule(Compute, ImageList, ObjectStore, Figures):
    """Rackspace's public cloud. An access key is the user name with an API key in the place of the secret key."""

    title = "Rackspace"
    proof = Proof.RECORDED
    proven_by = "Answers of Rackspace's that libcloud's authors recorded, and the parts that it shares with OpenStack."
    known_limits = (
        "No volumes: block storage speaks a version of its API that OpenStack has given up.",
        "Images cannot be brought in or taken out: Rackspace does it by way of its object store.",
        "Machines have public addresses of their own; there are no others.",
    )
    Settings = RackspaceSettings
    dialect: ClassVar[Dialect] = Dialect(compute_version=None, service_names={COMPUTE: "cloudServersOpenStack"})

    def _plugin_for(self, credentials: Credentials | None) -> Plugin:
        url = str(self.cloud.auth_url)
        if isinstance(credentials, AccessKeyCredentials):
            return ApiKey(url, credentials.access_key, credentials.secret_key.get_secret_value())
        account = resolve(credentials)
        return v2.Password(url, username=account.username, password=account.password.get_secret_value())

    def _default_network(self, client: Client) -> list[str]:
        """None: machines are then put into Rackspace's two networks, the public one and the one between machines."""
        return [self.cloud.network] if self.cloud.network else []
