"""EC2 at moto's server: what the conformance suite does not look at."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from libcloud.compute.drivers.ec2 import EC2NodeDriver

from tests.labs.moto import IMAGE, REGION, Moto, start_moto
from tests.labs.stub import Answer, Request, StubServer
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
from vendor_modules.resources import MachineSpec, StoredObject, UserData, VolumeSpec
from vendor_modules.services.credentials import AccessKeyCredentials
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


class Amazon(StubServer):
    """Answers as Amazon does where moto does not."""

    def __init__(self, answers: Callable[[Request], tuple[int, str]]) -> None:
        super().__init__()
        self.answers = answers

    def answer(self, request: Request) -> Answer:
        """See the base."""
        status, body = self.answers(request)
        return Answer(status, body.encode(), (("Content-Type", "text/xml"),))

    def asked(self, action: str) -> list[dict[str, str]]:
        """The parameters of all calls of an action."""
        return [request.form for request in self.seen if request.form["Action"] == action]

    def module(self) -> Ec2Module:
        """A module that asks this server."""
        settings = Ec2Settings.model_validate(
            {"region": REGION, "jurisdiction": "EU", "endpoint": self.url, "zone": "z"}
        )
        return Ec2Module(
            "ec2", settings, services(AccessKeyCredentials.model_validate({"access_key": "a", "secret_key": "b"}))
        )


async def test_names_of_objects_are_decoded_as_amazon_encodes_them() -> None:
    """In a list with encoding-type=url, Amazon writes a space as + and a plus sign as %2B."""
    listed = "<Contents><Key>a+b%2Bc%20d%C3%A9</Key><Size>3</Size></Contents>"
    with Amazon(lambda _: (200, f"<ListBucketResult>{listed}</ListBucketResult>")) as amazon:
        async with amazon.module() as module:
            assert await module.list_objects("bucket") == [StoredObject(name="a b+c dé", size=3)]
        assert amazon.seen[0].query["encoding-type"] == "url"


async def test_a_volume_is_created_once_for_its_token() -> None:
    """A volume's token is its key's; the next one is taken when EC2 remembers the token of a volume that is deleted."""

    def answers(request: Request) -> tuple[int, str]:
        action, known = request.form["Action"], request.form.get("ClientToken") == token("key")
        volume = "<volumeId>vol-{}</volumeId><size>1</size><status>{}</status>"
        told = volume.format(1, "deleting") if known else volume.format(2, "available")
        if action == "CreateVolume":
            return 200, f"<CreateVolumeResponse>{told}</CreateVolumeResponse>"
        there = f"<item>{told}</item>" if request.form.get("VolumeId.1") else ""
        return 200, f"<DescribeVolumesResponse><volumeSet>{there}</volumeSet></DescribeVolumesResponse>"

    with Amazon(answers) as amazon:
        async with amazon.module() as module:
            assert (await module.create_volume(VolumeSpec(name="v", size_mib=1024), key="key")).id == "vol-2"
        assert [asked["ClientToken"] for asked in amazon.asked("CreateVolume")] == [token("key"), token("key", 1)]


BALANCER = "arn:aws:elasticloadbalancing:eu:1:loadbalancer/net/mine/50dc6c495c0c9188"


@pytest.mark.parametrize("there", [True, False])
async def test_a_target_group_in_use_goes_in_the_end(there: bool) -> None:
    """Destroying a balancer, or one that is gone already, deletes its target group, which is in use for a while."""
    balancers = {BALANCER} if there else set()
    groups = {"group"}

    def answers(request: Request) -> tuple[int, str]:
        action, form = request.form["Action"], request.form
        if action == "DescribeLoadBalancers" and balancers:
            member = f"<member><LoadBalancerArn>{BALANCER}</LoadBalancerArn></member>"
            told = f"<{action}Result><LoadBalancers>{member}</LoadBalancers></{action}Result>"
        elif action == "DescribeLoadBalancers":
            return 400, "<R><Error><Code>LoadBalancerNotFound</Code><Message>none</Message></Error></R>"
        elif action == "DescribeTargetGroups":
            assert form["Names.member.1"] == "mine"
            users = f"<LoadBalancerArns><member>{BALANCER}</member></LoadBalancerArns>"
            found = "".join(f"<member><TargetGroupArn>{g}</TargetGroupArn>{users}</member>" for g in groups)
            told = f"<{action}Result><TargetGroups>{found}</TargetGroups></{action}Result>"
        elif action == "DeleteTargetGroup" and len(amazon.asked(action)) < 3:
            return 400, "<R><Error><Code>ResourceInUse</Code><Message>by a listener</Message></Error></R>"
        else:
            {"DeleteTargetGroup": groups, "DeleteLoadBalancer": balancers}[action].clear()
            told = ""
        return 200, f"<R>{told}</R>"

    with Amazon(answers) as amazon:
        async with amazon.module() as module:
            await module.destroy_load_balancer(BALANCER)
        assert not balancers
        assert not groups
        assert len(amazon.asked("DeleteTargetGroup")) == 3
        assert len(amazon.asked("DeleteLoadBalancer")) == there


@pytest.mark.integration
async def test_the_target_group_of_a_new_balancer_stays(module: Ec2Module) -> None:
    """To destroy a balancer that is gone does nothing to a later one of the same name."""
    machine = await module.create_machine(_spec(), key="balanced")
    made = await module.create_load_balancer("b", 80, [machine.id], key="balancer")
    await module.destroy_load_balancer(f"{made.id.rpartition('/')[0]}/0123456789abcdef")
    assert (await module.describe_load_balancer(made.id)).machines == (machine.id,)
