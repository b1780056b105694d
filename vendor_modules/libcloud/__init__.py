"""Modules for the providers that libcloud has a driver for: a provider with nothing unusual is one small file.

The author subclasses the mixins for what the driver can do, names the driver, and overrides the hooks where it is
different from most::

    class AcmeModule(LibcloudPower, LibcloudVolumes, LibcloudKeyPairs):
        title = "Acme"
        proof = Proof.RECORDED
        provider = Provider.ACME

        def _tags_for(self, kind, key, name):
            return {"ex_metadata": {KEY: key, NAME: name}} if kind in ("machine", "volume") else {}

        def _attached_to(self, volume):
            return volume.extra["server"] and (volume.extra["server"], volume.extra["device"])

Hooks take libcloud's driver and objects and run in a thread of the module's pool (:mod:`vendor_modules.blocking`): they
may block, and must not touch the event loop. How a resource is, is always read from the provider after a call: what
drivers return, booleans above all, is not believed.

*Idempotency.* Before anything is created, it is looked for: its key is in the tags that
:meth:`~core.LibcloudModule._tags_for` made, and where there are none, a digest of the key is in the name
(:mod:`vendor_modules.labels`).

What the base calls of libcloud have no words for (security groups, addresses, networks) a provider's file does with the
driver's own: ``await self._run(lambda driver: …, key=…)``, inheriting from :mod:`vendor_modules.capabilities`.
"""

from vendor_modules.libcloud.core import Driver, LibcloudModule, LibcloudSettings, account, one
from vendor_modules.libcloud.machines import (
    LibcloudFirstBoot,
    LibcloudImages,
    LibcloudKeyPairs,
    LibcloudListedImages,
    LibcloudMachineBundle,
    LibcloudPower,
    LibcloudStartedLast,
)
from vendor_modules.libcloud.volumes import LibcloudSnapshots, LibcloudVolumes, gib

__all__ = [
    "Driver",
    "LibcloudFirstBoot",
    "LibcloudImages",
    "LibcloudKeyPairs",
    "LibcloudListedImages",
    "LibcloudMachineBundle",
    "LibcloudModule",
    "LibcloudPower",
    "LibcloudSettings",
    "LibcloudSnapshots",
    "LibcloudStartedLast",
    "LibcloudVolumes",
    "account",
    "gib",
    "one",
]
