"""The Rackspace module understands what libcloud's authors recorded of Rackspace's answers; a server on the loopback
interface gives them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import libcloud
import pytest
import pytest_asyncio
from pydantic import AnyHttpUrl, SecretStr

from tests.labs.testbed import services
from vendor_modules.errors import NotFound, Unauthorized
from vendor_modules.rackspace import RackspaceModule, RackspaceSettings
from vendor_modules.resources import MachineSpec, Status
from vendor_modules.services.credentials import AccessKeyCredentials, PasswordCredentials

RECORDED = Path(libcloud.__file__).parent / "test"
COMPUTE, STORE = "/dfw.servers.api.rackspacecloud.com/v2/1337", "/storage101.ord1.clouddrive.com/v1/MossoCloudFS_"
ANSWERS = {
    f"GET {COMPUTE}/flavors/detail": "compute/fixtures/openstack_v1_1/_flavors_detail.json",
    f"GET {COMPUTE}/flavors/7": "compute/fixtures/openstack_v1_1/_flavors_7.json",
    f"GET {COMPUTE}/servers/detail": "compute/fixtures/openstack_v1_1/_servers_detail.json",
    f"GET {COMPUTE}/servers/12064": "compute/fixtures/openstack_v1_1/_servers_12064.json",
    f"POST {COMPUTE}/servers": "compute/fixtures/openstack_v1_1/_servers_create.json",
    f"GET {COMPUTE}/servers/26f7fbee-8ce1-4c28-887a-bfe8e4bb10fe": (
        "compute/fixtures/openstack_v1_1/_servers_26f7fbee_8ce1_4c28_887a_bfe8e4bb10fe.json"
    ),
    f"POST {COMPUTE}/servers/12064/action": "compute/fixtures/openstack_v1_1/_servers_12086_console_output.json",
    f"GET {COMPUTE}/os-keypairs": "compute/fixtures/openstack_v1_1/_os_keypairs.json",
}
USER, PASSWORD, API_KEY = "testuser", "the password", "the API key"


class Recordings(BaseHTTPRequestHandler):
    """Rackspace, as far as it was recorded; notes what it is sent."""

    seen: list[tuple[str, dict[str, object]]]

    def do_GET(self) -> None:
        """Answer a question."""
        self._answer(None)

    def do_POST(self) -> None:
        """Answer an order."""
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: dict[str, object] | None) -> None:
        request = f"{self.command} {urlsplit(self.path).path}"
        self.server.seen.append((request, body))  # type: ignore[attr-defined]
        if request == "POST /v2.0/tokens":
            self._send(*self._token(body["auth"]))
        elif self.headers["x-auth-token"] != "aaaaaaaaaaaa-bbb-cccccccccccccc":
            self._send(401, {"unauthorized": {"message": "no token"}})
        elif request in ANSWERS:
            self._send(200, json.loads((RECORDED / ANSWERS[request]).read_text()))
        else:
            self._send(404, {"itemNotFound": {"message": "it was not recorded"}})

    def _token(self, auth):
        account = auth.get("passwordCredentials") or auth["RAX-KSKEY:apiKeyCredentials"]
        if account not in ({"username": USER, "password": PASSWORD}, {"username": USER, "apiKey": API_KEY}):
            return 401, {"unauthorized": {"message": "Unable to authenticate user with credentials provided."}}
        recorded = (RECORDED / "compute/fixtures/openstack/_v2_0__auth.json").read_text()
        return 200, json.loads(recorded.replace("https://", f"http://127.0.0.1:{self.server.server_port}/"))

    def _send(self, status: int, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def rackspace():
    """The server of recordings; ``seen`` is what it was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Recordings) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def module_at(server, credentials):
    """A module that talks to the recordings."""
    url = AnyHttpUrl(f"http://127.0.0.1:{server.server_port}/v2.0")
    return RackspaceModule("rackspace", RackspaceSettings(auth_url=url), services(credentials))


@pytest_asyncio.fixture
async def module(rackspace):
    """A module that logs in with an API key."""
    async with module_at(rackspace, AccessKeyCredentials(access_key=USER, secret_key=SecretStr(API_KEY))) as module:
        yield module


@pytest.mark.parametrize(
    "credentials",
    [
        AccessKeyCredentials(access_key=USER, secret_key=SecretStr(API_KEY)),
        PasswordCredentials(username=USER, password=SecretStr(PASSWORD)),
    ],
    ids=lambda credentials: credentials.kind,
)
async def test_both_logins(rackspace, credentials):
    """A user name logs in with its API key, and with its password."""
    async with module_at(rackspace, credentials) as module:
        assert (await module.catalogue()).sizes


async def test_a_wrong_api_key_is_refused(rackspace):
    """An API key that is not the account's is Unauthorized, and not told in the error."""
    wrong = AccessKeyCredentials(access_key=USER, secret_key=SecretStr("wrong-secret"))
    async with module_at(rackspace, wrong) as module:
        with pytest.raises(Unauthorized) as caught:
            await module.catalogue()
    assert "wrong-secret" not in str(caught.value)


async def test_machines_of_the_compute_service_that_sells(module):
    """Of the four compute services in the catalogue the right one is asked; its machines have their images and public
    addresses, and their states: both are still spawning, though one of them says that it is ACTIVE."""
    machines = {machine.id: machine for machine in await module.list_machines()}
    seen = [(m.status, m.image, m.host) for m in (machines["12065"], machines["12064"])]
    assert seen == [(Status.PENDING, "7", "50.57.94.35"), (Status.PENDING, "7", "50.57.94.30")]


async def test_a_flavour_that_is_not_sold_any_more_is_told_by_its_id(module):
    """A machine of a flavour that cannot be asked about is listed all the same."""
    assert {machine.size for machine in await module.list_machines()} == {"2"}


async def test_an_order_has_no_networks(module, rackspace):
    """A machine is ordered without a word about networks: it is then put into Rackspace's own two."""
    size = next(size.name for size in (await module.catalogue()).sizes if size.memory_mib == 16384)
    assert size == "7"  # by its id: its name, "15.5GB slice", has a space
    made = await module._create_machine(MachineSpec(name="a machine", image="7", size=size), "the-key")
    (order,) = [body["server"] for request, body in rackspace.seen if request == f"POST {COMPUTE}/servers"]
    assert made.id == "26f7fbee-8ce1-4c28-887a-bfe8e4bb10fe"
    assert "networks" not in order
    assert (order["name"], order["imageRef"], order["metadata"]) == ("a machine", "7", {"cloud-agency-key": "the-key"})


async def test_console_and_key_pairs(module):
    """What a machine printed and the account's key pairs are read."""
    assert (await module.console("12064")).endswith("LAST LINE")
    assert [pair.name for pair in await module.list_key_pairs()][:2] == ["key1", "key2"]


async def test_what_is_not_there_is_not_found(module):
    """A machine that was not recorded is NotFound."""
    with pytest.raises(NotFound):
        await module.describe_machine("4711")
