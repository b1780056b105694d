"""The conformance suite's checks that create nothing, on recordings that remember nothing."""

from typing import Any

import pytest

from tests.labs.libcloud_fixtures import CREDENTIALS, replay, subject
from tests.vendor_modules.recorded import (
    test_cloudsigma,
    test_cloudstack,
    test_onapp,
    test_opennebula,
    test_vcloud,
    test_vsphere,
)
from vendor_modules import conformance
from vendor_modules.cloudsigma import CloudSigmaModule
from vendor_modules.cloudstack import CloudStackModule
from vendor_modules.module import VendorModule
from vendor_modules.onapp import OnAppModule
from vendor_modules.opennebula import NiifiModule, OpenNebulaModule
from vendor_modules.services.credentials import Credentials
from vendor_modules.vcloud import VCloudModule
from vendor_modules.vsphere import VSphereModule

SERVICES: dict[type[VendorModule], tuple[str, str, dict[str, Any], Credentials]] = {
    OpenNebulaModule: ("test_opennebula", "OpenNebula_3_8_MockHttp", test_opennebula.SETTINGS, CREDENTIALS),
    NiifiModule: ("test_opennebula", "OpenNebula_3_8_MockHttp", test_opennebula.SETTINGS, CREDENTIALS),
    CloudStackModule: ("test_cloudstack", "CloudStackMockHttp", test_cloudstack.SETTINGS, test_cloudstack.KEYS),
    CloudSigmaModule: ("test_cloudsigma_v2_0", "CloudSigmaMockHttp", test_cloudsigma.SETTINGS, CREDENTIALS),
    VCloudModule: ("test_vcloud", "VCloud_5_5_MockHttp", test_vcloud.SETTINGS, CREDENTIALS),
    VSphereModule: ("test_vsphere", "VSphereMockHttp", test_vsphere.SETTINGS, CREDENTIALS),
    OnAppModule: ("test_onapp", "OnAppMockHttp", test_onapp.SETTINGS, CREDENTIALS),
}
CREATING_NOTHING = (
    "identity-is-stated",
    "settings-",
    "abilities-are-of-operations",
    "emulation-is-explained",
    "operation-catalogue-",
    "catalogue-",
    "unknown-price-is-refused",
    "offer-is-",
    "offer-can-",
    "offers-are-",
    "machine-unknown-is-not-found",
    "volume-unknown-is-not-found",
    "snapshot-unknown-is-not-found",
    "key-pair-unknown-is-not-found",
    "security-group-unknown-is-not-found",
    "operation-destroy-image-",
    "missing-credentials-are-unauthorized",
    "secrets-are-not-in-the-log",
    "secrets-are-not-in-representations",
    "errors-say-where-and-what-to-do",
    "unused-module-can-be-closed",
    "quotas-are-told-once",
)
CHECKS = [
    pytest.param(kind, check, id=f"{kind.__name__}-{check.name}")
    for kind in SERVICES
    for check in conformance.checks_for(kind)
    if check.name.startswith(CREATING_NOTHING)
]


@pytest.mark.parametrize(("kind", "check"), CHECKS)
async def test_conformance(kind: type[VendorModule], check: conformance.Check) -> None:
    """The module keeps the check's contract, as far as a recording can show it."""
    test, mock, settings, credentials = SERVICES[kind]
    with replay(test, mock):
        result = await conformance.run_check(check, subject(kind, settings, credentials))
    assert result.outcome == "passed", result.reason


def test_every_module_is_asked_enough() -> None:
    """At least 20 checks are run on each module: the list above goes by names, which may change."""
    asked = [param.values[0] for param in CHECKS]
    assert min(asked.count(kind) for kind in SERVICES) >= 20
