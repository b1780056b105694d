"""KubeVirt, as libcloud recorded it, through our module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.labs.libcloud_fixtures import PASSWORD, Recording, examined, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.errors import Conflict, Forbidden, InvalidRequest, NotFound, Throttled, Unauthorized, Unsupported
from vendor_modules.kubevirt import KubevirtModule
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.resources import Machine, MachineSpec, Status, UserData

SETTINGS: dict[str, Any] = {
    "region": "home",
    "jurisdiction": "EU",
    "url": "https://https-cluster.example:6443",
    "namespace": "default",
    "sizes": [{"name": "small", "cores": 1, "memory_mib": 64}, {"name": "large", "cores": 4, "memory_mib": 8192}],
    "prices_per_hour": {"small": "0.01", "large": "0.1"},
}
IMAGE = "kubevirt/cirros-registry-disk-demo"
SPEC = MachineSpec(name="Web ☎", image=IMAGE, size="large")
TESTVM = "74fd7665-fbd6-4565-977c-96bd21fb785a"
MACHINES = "/apis/kubevirt.io/v1alpha3/namespaces/default/virtualmachines"


class Cluster(Routes):
    """The recorded namespace, which remembers: machines are those that were made, their pods what was recorded."""

    def __init__(self) -> None:
        super().__init__("kubevirt")
        self.machines = {one["metadata"]["name"]: one for one in self.recorded("get_default_vms.json")["items"]}
        self.pods = self.recorded("get_pods.json")["items"]
        self.on("GET", MACHINES, lambda _: (200, {"items": list(self.machines.values())}))
        self.on("POST", f"{MACHINES}/?", self._create)
        self.on("PATCH", f"{MACHINES}/([^/]+)", self._patch)
        self.on("DELETE", f"{MACHINES}/([^/]+)", self._delete)
        self.on("GET", "/+api/v1/+namespaces/default/services", lambda _: (200, self.recorded("get_services.json")))
        self.on("GET", "/api/v1/namespaces/default/pods", lambda _: (200, {"items": self._pods()}))

    def refuse(self, headers: Any) -> tuple[int, Any] | None:
        right = headers["Authorization"] == f"Bearer {PASSWORD}"
        return None if right else (401, {"kind": "Status", "message": "Unauthorized", "code": 401})

    def _pods(self) -> list[Any]:
        (pod,) = [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["name"] == "testvm"]
        running = [name for name, machine in self.machines.items() if machine["spec"]["running"]]
        return [
            json.loads(json.dumps(pod)) | {"metadata": {"name": name, "ownerReferences": [{"name": name}]}}
            for name in running
        ]

    def _create(self, asked: Any) -> tuple[int, Any]:
        name = asked["metadata"]["name"]
        if name in self.machines:
            raise Refused(409, {"kind": "Status", "reason": "AlreadyExists", "code": 409})
        made = self.recorded("create_vm.json")
        made["metadata"] |= asked["metadata"] | {"uid": f"uid-{next(self.numbers)}"}
        self.machines[name] = made | {"spec": asked["spec"]}
        return 201, made

    def _machine(self, name: str) -> Any:
        if name not in self.machines:
            raise Refused(404, {"kind": "Status", "reason": "NotFound", "code": 404})
        return self.machines[name]

    def _patch(self, name: str, asked: Any) -> tuple[int, Any]:
        machine = self._machine(name)
        machine["spec"]["running"] = asked["spec"]["running"]
        return 200, machine

    def _delete(self, name: str, _: Any) -> tuple[int, Any]:
        return 200, self.machines.pop(self._machine(name)["metadata"]["name"])


@pytest.fixture
def cluster() -> Cluster:
    """What the service remembers."""
    return Cluster()


@pytest.fixture
def service(cluster: Cluster) -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_kubevirt", "KubeVirtMockHttp", _get_request=cluster) as recording:
        yield recording


async def test_the_sizes_are_those_of_the_settings(service: Recording) -> None:
    """The catalogue has the sizes and prices that the settings tell."""
    async with examined(KubevirtModule, SETTINGS) as module:
        sizes = (await module.catalogue()).sizes
    told = [(size.name, size.cores, size.memory_mib, str(size.price_per_hour)) for size in sizes]
    assert told == [("small", 1, 64, "0.01"), ("large", 4, 8192, "0.1")]


async def test_the_recorded_machine(service: Recording) -> None:
    """The recorded machine is told with state, size, image and its pod's address."""
    async with examined(KubevirtModule, SETTINGS) as module:
        (machine,) = await module.list_machines()
        assert machine == await module.describe_machine(TESTVM)
    state = {"status": Status.ACTIVE, "host": "172.17.0.11", "port": 8080}
    assert machine == Machine(id=TESTVM, name="testvm", size="small", image=IMAGE, **state)


async def test_the_mock_of_libcloud_says_the_same() -> None:
    """The recording as libcloud's own test has it, which remembers nothing, lists that machine too."""
    with replay("test_kubevirt", "KubeVirtMockHttp"):
        async with examined(KubevirtModule, SETTINGS) as module:
            assert [machine.id for machine in await module.list_machines()] == [TESTVM]


async def test_a_machine_without_a_pod_is_pending(cluster: Cluster, service: Recording) -> None:
    """A machine that is to run and has no pod yet is PENDING."""
    cluster._pods = list  # type: ignore[method-assign, assignment]
    async with examined(KubevirtModule, SETTINGS) as module:
        assert (await module.describe_machine(TESTVM)).status is Status.PENDING


async def test_creating_a_machine(service: Recording) -> None:
    """Key and name are annotations, the script of the first boot is cloud-init's; a second call creates nothing."""
    spec = SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"})})
    async with examined(KubevirtModule, SETTINGS) as module:
        made = await module.create_machine(spec, key="key/1")
        assert await module.create_machine(spec, key="key/1") == made
    assert (made.name, made.key, made.size, made.image) == ("Web ☎", "key/1", "large", IMAGE)
    (request,) = service.sent("POST")
    sent = json.loads(request.body)
    assert sent["metadata"]["annotations"] == {KEY: "key/1", NAME: "Web ☎"}
    assert sent["metadata"]["name"] == name_for("key/1", "Web ☎", longest=60)
    machine = sent["spec"]["template"]["spec"]
    boot, first = machine["volumes"]
    assert boot == {"name": "boot", "containerDisk": {"image": IMAGE}}
    assert first["cloudInitNoCloud"]["userData"].startswith("#!/bin/sh\n")
    assert machine["domain"]["resources"]["limits"] == {"cpu": "4", "memory": "8192Mi"}
    assert [disk["name"] for disk in machine["domain"]["devices"]["disks"]] == ["boot", "first-boot"]


async def test_what_cannot_be_made_is_refused(service: Recording) -> None:
    """A size that is not offered, and volumes or key pairs, are refused before anything is created."""
    async with examined(KubevirtModule, SETTINGS) as module:
        with pytest.raises(InvalidRequest):
            await module.create_machine(SPEC.model_copy(update={"size": "huge"}), key="k")
        with pytest.raises(Unsupported):
            await module.create_machine(SPEC.model_copy(update={"key_pair": "k"}), key="k")
    assert service.sent("POST") == []


async def test_power_and_destroying(service: Recording) -> None:
    """A machine is stopped, started and removed, each once however often it is asked for; services stay."""
    async with examined(KubevirtModule, SETTINGS) as module:
        for _ in range(2):
            assert (await module.stop_machine(TESTVM)).status is Status.STOPPED
        for _ in range(2):
            assert (await module.start_machine(TESTVM)).status is Status.ACTIVE
        for _ in range(2):
            await module.destroy_machine(TESTVM)
        with pytest.raises(NotFound):
            await module.describe_machine(TESTVM)
    stop, start, destroy = [request for request in service.requests if request.method != "GET"]
    assert (stop.method, json.loads(stop.body)) == ("PATCH", {"spec": {"running": False}})
    assert (start.method, json.loads(start.body)) == ("PATCH", {"spec": {"running": True}})
    assert (destroy.method, destroy.path) == ("DELETE", f"{MACHINES}/testvm")


async def test_certificates_are_verified(service: Recording) -> None:
    """Without an authority of its own, the cluster's certificate is verified by those that the computer trusts, and the
    host's name is the one that was given, though it begins like a protocol."""
    async with examined(KubevirtModule, SETTINGS) as module:
        connection = await module._run(lambda driver: driver.connection)
    assert connection.connection.verification is True
    assert (connection.host, connection.port, connection.secure) == ("https-cluster.example", 6443, True)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Unauthorized), (403, Forbidden), (404, NotFound), (409, Conflict), (422, InvalidRequest), (429, Throttled)],
)
async def test_refusals(cluster: Cluster, service: Recording, status: int, error: type[Exception]) -> None:
    """What the cluster refuses is told in our words, without the token."""
    told = {"kind": "Status", "message": f"no {PASSWORD}", "code": status}
    cluster.refuse = lambda headers: (status, told)  # type: ignore[method-assign]
    async with examined(KubevirtModule, SETTINGS) as module:
        with pytest.raises(error) as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


# --- the conformance suite, as far as it goes with a recording ---

CHECKS = checks_for(KubevirtModule, ["machine-from-an-unknown-image-is-refused"])
"""Which images there are, the cluster learns when it fetches one."""


@pytest.fixture
def whole(service: Recording) -> conformance.Subject:
    """The module as the suite examines it."""
    return replace(subject(KubevirtModule, SETTINGS), image=IMAGE)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, whole: conformance.Subject) -> None:
    """The module does what the conformance suite asks."""
    result = await conformance.run_check(check, whole)
    assert result.outcome != "failed", result.reason
