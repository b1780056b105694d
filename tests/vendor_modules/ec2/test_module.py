"""EC2 at moto's server: what the conformance suite does not look at."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from libcloud.compute.drivers.ec2 import EC2NodeDriver

from tests.labs.moto import IMAGE, REGION, Moto, start_moto
from tests.labs.testbed import services
from vendor_modules.ec2.compute import Ec2Settings
from vendor_modules.ec2.driver import Ec2Driver, Signer, text, token
from vendor_modules.ec2.errors import refusal
from vendor_modules.ec2.module import Ec2Module
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.libcloud import account
from vendor_modules.resources import MachineSpec, UserData, VolumeSpec
from vendor_modules.userdata import script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moto(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Moto]:
    async with start_moto(tmp_path_factory.mktemp("moto")) as running:
        yield running


@pytest.fixture
async def module(moto: Moto) -> AsyncIterator[Ec2Module]:
    settings = Ec2Settings.model_validate({"region": REGION, "jurisdiction": "EU", "endpoint": moto.url})
    async with Ec2Module("ec2", settings, services(moto.credentials)) as made:
        yield made


def _spec(**more: object) -> MachineSpec:
    return MachineSpec.model_validate({"name": "machine", "image": IMAGE, "size": "t3.micro", **more})


@pytest.mark.integration
async def test_lists_are_not_silently_empty(module: Ec2Module, moto: Moto) -> None:
    """Moto's XML namespace is not EC2's: libcloud's own driver finds nothing in its lists, and ours everything."""
    made = await module.create_machine(_spec(), key="namespace")
    host, port = moto.url.removeprefix("http://").split(":")
    bare = EC2NodeDriver(
        *account(moto.credentials), host=host, port=int(port), secure=False, region=REGION, signature_version="4"
    )
    bare.connection.signer = Signer(bare.key, bare.secret, bare.connection.version, bare.connection)
    try:
        assert bare.list_nodes() == []
        assert made.id in [machine.id for machine in await module.list_machines()]
    finally:
        bare.connection.connection.session.close()
    assert await module.list_networks()
    assert await module.list_security_groups()


@pytest.mark.integration
async def test_user_data_arrives(module: Ec2Module, moto: Moto) -> None:
    """A machine is given the script of its user data; that it would run it, moto cannot show."""
    data = UserData(files={"a": bytes(range(256))})
    made = await module.create_machine(_spec(user_data=data), key="user-data")
    driver = Ec2Driver(*account(moto.credentials), url=moto.url, region=REGION)
    try:
        told = driver.ask("DescribeInstanceAttribute", InstanceId=made.id, Attribute="userData")
    finally:
        driver.connection.connection.session.close()
    given = b64decode(text(told, "userData/value") or "").decode()
    assert given.replace("ln -sfn /dev dev\n", "", 1) == script(data).decode()


@pytest.mark.integration
async def test_too_much_user_data_is_refused(module: Ec2Module) -> None:
    """User data of more than 16 KiB is refused before anything is made."""
    data = UserData(files={"a": bytes(16 * 1024)})
    with pytest.raises(InvalidRequest):
        await module.create_machine(_spec(user_data=data), key="too-much")
    assert not [machine for machine in await module.list_machines() if machine.key == "too-much"]


@pytest.mark.integration
async def test_devices_are_ec2s(module: Ec2Module) -> None:
    """A volume is attached as a device that EC2 knows; another is refused."""
    machine = await module.create_machine(_spec(), key="device")
    volume = await module.create_volume(VolumeSpec(name="v", size_mib=1), key="device")
    assert volume.size_mib == 1024
    with pytest.raises(InvalidRequest):
        await module.attach_volume(volume.id, machine.id, "data/disk")
    attached = await module.attach_volume(volume.id, machine.id, "dev/sdf")
    assert (attached.machine, attached.device) == (machine.id, "dev/sdf")


REFUSALS: list[tuple[str, int, type[VendorError]]] = [
    ("AuthFailure", 401, Unauthorized),
    ("ExpiredToken", 400, Unauthorized),
    ("UnauthorizedOperation", 403, Forbidden),
    ("InvalidInstanceID.NotFound", 400, NotFound),
    ("InvalidVolume.NotFound", 400, NotFound),
    ("InvalidAMIID.Malformed", 400, NotFound),
    ("NoSuchBucket", 404, NotFound),
    ("IncorrectInstanceState", 400, Conflict),
    ("VolumeInUse", 400, Conflict),
    ("DependencyViolation", 400, Conflict),
    ("InvalidGroup.Duplicate", 400, Conflict),
    ("BucketAlreadyOwnedByYou", 409, Conflict),
    ("InstanceLimitExceeded", 400, QuotaExceeded),
    ("AddressLimitExceeded", 400, QuotaExceeded),
    ("RequestLimitExceeded", 503, Throttled),
    ("SlowDown", 503, Throttled),
    ("InsufficientInstanceCapacity", 500, Unavailable),
    ("InternalError", 500, Unavailable),
    ("InvalidParameterValue", 400, InvalidRequest),
    ("InvalidKey.Format", 400, InvalidRequest),
    ("UnsupportedOperation", 400, Unsupported),
    ("SomethingNew", 400, InvalidRequest),
    ("SomethingNew", 503, Unavailable),
    ("", 502, Unavailable),
]


@pytest.mark.parametrize(("code", "status", "kind"), REFUSALS)
def test_refusals_mean_what_they_mean(code: str, status: int, kind: type[VendorError]) -> None:
    """AWS's codes are errors of ours; a code that is not known is known by its status."""
    error = refusal(code, "words", status)
    assert type(error) is kind
    assert "words" in error.detail


def test_tokens_tell_keys_and_attempts_apart() -> None:
    """A client token is the same for a key and attempt, another for any other, and at most 64 characters long."""
    assert token("key") == token("key", 0)
    assert len({token("key"), token("key", 1), token("other")}) == 3
    assert len(token("k" * 255)) <= 64
