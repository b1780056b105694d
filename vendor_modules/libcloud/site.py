"""Clouds whose prices libcloud does not know, and those that anybody can run: what they charge and where they are is in
the vendor's settings."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from libcloud.compute.base import NodeSize
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from descriptors.base import Identifier, Mebibytes, Money
from vendor_modules.libcloud.core import Driver, LibcloudModule, LibcloudSettings
from vendor_modules.module import ModuleSettings, PriceSource
from vendor_modules.resources import Size

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s?#@]+(/[^\s?#]*)?$")]


class PricedSettings(LibcloudSettings):
    """The settings of a provider whose prices nobody tells."""

    prices_per_hour: dict[Identifier, Money] = Field(default_factory=dict)
    """The price of an hour by the machine size's name. Sizes without one are not offered."""


class LibcloudPriced(LibcloudModule):
    """A module whose settings are :class:`PricedSettings`."""

    prices: ClassVar[PriceSource] = PriceSource.SETTINGS
    Settings: ClassVar[type[ModuleSettings]] = PricedSettings

    def _size(self, size: Any) -> Size:
        assert isinstance(self.settings, PricedSettings)  # noqa: S101 - the registry makes them from Settings
        told = super()._size(size)
        return told.model_copy(update={"price_per_hour": self.settings.prices_per_hour.get(told.name)})


class SiteSettings(PricedSettings):
    """Where a cloud's API is, and its prices."""

    url: Url
    """Where the API is, as ``https://cloud.example:8443``."""

    def server(self) -> dict[str, Any]:
        """The driver's arguments ``host``, ``port`` and ``secure``."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        return {"host": parts.hostname, "port": parts.port or (443 if secure else 80), "secure": secure}


class LibcloudSite(LibcloudPriced):
    """A module whose settings are :class:`SiteSettings`."""

    Settings: ClassVar[type[ModuleSettings]] = SiteSettings

    @property
    def _site(self) -> SiteSettings:
        assert isinstance(self.settings, SiteSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _driver_options(self) -> dict[str, Any]:
        return self._site.server()


class OfferedSize(BaseModel):
    """A machine size of a cloud that has none of its own: any number of cores and any memory can be asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Identifier
    cores: Annotated[int, Field(ge=1)]
    memory_mib: Mebibytes
    disk_gib: Annotated[int, Field(ge=1)] = 10


class SizedSiteSettings(SiteSettings):
    """The settings of a cloud without machine sizes: those to offer are told here."""

    sizes: Annotated[tuple[OfferedSize, ...], Field(min_length=1)]
    """The machine sizes to offer."""


class LibcloudSizedSite(LibcloudSite):
    """A module whose settings are :class:`SizedSiteSettings`."""

    Settings: ClassVar[type[ModuleSettings]] = SizedSiteSettings

    def _node_sizes(self, driver: Driver) -> list[Any]:
        assert isinstance(self.settings, SizedSiteSettings)  # noqa: S101 - the registry makes them from Settings
        return [
            NodeSize(
                size.name, size.name, size.memory_mib, size.disk_gib, None, 0.0, driver, extra={"cpus": size.cores}
            )
            for size in self.settings.sizes
        ]

    def _size_like(self, cores: Any, memory_mib: Any) -> str:
        """The name of the size that has so many cores and so much memory."""
        assert isinstance(self.settings, SizedSiteSettings)  # noqa: S101 - the registry makes them from Settings
        fitting = (s.name for s in self.settings.sizes if (s.cores, s.memory_mib) == (cores, memory_mib))
        return next(fitting, "unknown")
