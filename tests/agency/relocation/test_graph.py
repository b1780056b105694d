"""The graphs of tasks: whatever the application, they can be walked and end where they should."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agency.relocation.graph import deployment_tasks, relocation_tasks
from agency.relocation.migrators import migrators
from descriptors.application import Application, BucketUse, Command, Component, Tier, VolumeUse
from descriptors.deployment import DeployedResource, Deployment, Endpoint
from descriptors.relocation import Task
from descriptors.resources import ResourceClass, ResourceType
from descriptors.sla import Allocation
from vendor_modules.proposals import MACHINE_DISK

COMPONENTS = ["c0", "c1", "c2", "c3"]


@st.composite
def applications(draw: st.DrawFn) -> Application:
    """Up to four components that depend on earlier ones, each with some volumes of its own and some shared buckets."""
    names = COMPONENTS[: draw(st.integers(1, 4))]
    volumes: dict[str, str] = {}
    components = []
    for place, name in enumerate(names):
        own = [f"{name}-v{number}" for number in range(draw(st.integers(0, 2)))]
        volumes |= dict.fromkeys(own, name)
        buckets = draw(st.sets(st.sampled_from(["b0", "b1"])))
        components.append(
            Component(
                name=name,
                resource="machine",
                port=draw(st.sampled_from([None, 80])),
                depends_on=tuple(sorted(draw(st.sets(st.sampled_from(names[:place]))))) if place else (),
                volumes=tuple(VolumeUse(resource=volume, device=f"dev/{volume}") for volume in own),
                buckets=tuple(BucketUse(resource=bucket) for bucket in sorted(buckets)),
                commands=(Command(phase="start", line="run"),),
            )
        )
    kept = [ResourceClass(name="machine", type=ResourceType.COMPUTE, cores=1)]
    kept += [ResourceClass(name=b, type=ResourceType.STORAGE, kind="object") for b in ("b0", "b1")]
    kept += [ResourceClass(name=v, type=ResourceType.STORAGE, kind="block", size_mib=1) for v in volumes]
    shuffled = draw(st.permutations(components))
    return Application(name="notes", resources=tuple(kept), tiers=(Tier(name="all", components=tuple(shuffled)),))


def as_deployed(application: Application, vendor: str, in_disk: Iterable[str] = ()) -> Deployment:
    """The deployment that carrying out the tasks would give, some volumes having been adapted since."""
    resources: list[DeployedResource] = []
    for task in deployment_tasks(application, {c.name: vendor for c in application.components}):
        kind = getattr(migrators()[task.migrator], "kind", None)
        if kind is None or (kind == "volume" and task.subject in in_disk):
            continue
        serves = {migrators()[task.migrator].serves: task.subject}
        about = {"kind": kind, "id": task.name, "name": task.name, "vendor": vendor, "key": f"d/{task.name}"}
        resources.append(DeployedResource(agreement="a", **about, **serves))
    return Deployment(
        id="d",
        application=application.name,
        revision=1,
        changed="2026-11-20T12:00:00Z",
        status="running",
        agreements=("a",),
        resources=tuple(resources),
        endpoints=tuple(Endpoint(component=c.name, url="http://x") for c in application.components if c.port),
    )


@st.composite
def moves(draw: st.DrawFn) -> tuple[Application, Deployment, list[str], tuple[Task, ...]]:
    """An application as deployed, what of it is to move, and the tasks of the move."""
    application = draw(applications())
    every = [c.name for c in application.start_order()]
    moving = draw(st.sampled_from([every, *[[name] for name in every]]))
    volumes = [use.resource for c in application.components for use in c.volumes]
    was_in_disk = draw(st.sets(st.sampled_from(volumes))) if volumes else set()
    will_be = draw(st.sets(st.sampled_from(volumes))) if volumes else set()
    deployment = as_deployed(application, "source", was_in_disk)
    gives = [Allocation(resource=v, size=MACHINE_DISK, price_per_hour=Decimal(0)) for v in will_be]
    gives += [Allocation(resource=v, size="block", price_per_hour=Decimal(0)) for v in volumes if v not in will_be]
    return application, deployment, moving, relocation_tasks(application, deployment, moving, "target", gives)


def before(tasks: Iterable[Task]) -> dict[str, set[str]]:
    """For each task, all that must be done before it."""
    found: dict[str, set[str]] = {}
    for task in tasks:
        found[task.name] = set(task.needs).union(*(found[need] for need in task.needs))
    return found


def check_walkable(tasks: tuple[Task, ...]) -> None:
    """Each name is there once, each need is there, and comes before: so there is no circle."""
    done: set[str] = set()
    for task in tasks:
        assert task.name not in done
        assert set(task.needs) <= done
        assert task.migrator in migrators()
        done.add(task.name)


@given(applications())
def test_a_deployment_can_be_walked(application: Application) -> None:
    """Every task needs only what comes before it, and there is a Migrator for it."""
    check_walkable(deployment_tasks(application, {c.name: "here" for c in application.components}))


@given(applications())
def test_a_deployment_makes_everything_once(application: Application) -> None:
    """Each component is launched and verified once, after what it uses and after what it depends on works; who has a
    port is published after it was verified."""
    tasks = deployment_tasks(application, {c.name: "here" for c in application.components})
    earlier = before(tasks)
    assert {task.vendor for task in tasks} == {"here"}
    for component in application.components:
        launched = earlier[f"launch-{component.name}"]
        assert f"launch-{component.name}" in earlier[f"verify-{component.name}"]
        assert {f"volume-{use.resource}" for use in component.volumes} <= launched
        assert {f"access-key-{use.resource}" for use in component.buckets} <= launched
        assert {f"verify-{name}" for name in component.depends_on} <= launched
        assert (f"publish-{component.name}" in earlier) == (component.port is not None)
        if component.port:
            assert f"verify-{component.name}" in earlier[f"publish-{component.name}"]


@given(moves())
def test_a_relocation_can_be_walked(move: tuple[Application, Deployment, list[str], tuple[Task, ...]]) -> None:
    """Every task needs only what comes before it, and there is a Migrator for it."""
    check_walkable(move[3])


@given(moves())
def test_every_component_takes_every_step(
    move: tuple[Application, Deployment, list[str], tuple[Task, ...]],
) -> None:
    """Each component that moves is fenced, stopped, bundled, fetched, adapted, uploaded, launched, verified and
    switched, in that order; one that stays is not touched."""
    _, _, moving, tasks = move
    earlier = before(tasks)
    steps = ["fence", "stop", "bundle-machine", "fetch-machine", "adapt", "upload-machine", "launch", "verify"]
    for name in moving:
        way = [*(f"{step}-{name}" for step in steps), "switch"]
        for one, next_ in pairwise(way):
            assert one in earlier[next_]
    for name in set(COMPONENTS) - set(moving):
        assert not [task for task in tasks if task.subject == name]


@given(moves())
def test_nothing_is_taken_from_a_machine_that_runs(
    move: tuple[Application, Deployment, list[str], tuple[Task, ...]],
) -> None:
    """Whatever reads a disk comes after its machine was stopped, and no machine is stopped before all are fenced."""
    application, _, moving, tasks = move
    earlier = before(tasks)
    fenced = {f"fence-{name}" for name in moving}
    for name in moving:
        assert fenced <= earlier[f"stop-{name}"]
        disks = [f"bundle-machine-{name}"]
        disks += [f"bundle-volume-{use.resource}" for use in application.component(name).volumes]
        for disk in set(disks) & set(earlier):
            assert f"stop-{name}" in earlier[disk]


@given(moves())
def test_what_can_be_done_before_the_down_time_is(
    move: tuple[Application, Deployment, list[str], tuple[Task, ...]],
) -> None:
    """Keys, rules and addresses at the target are made before anything is fenced, and what needs a stopped machine is
    not."""
    _, _, moving, tasks = move
    earlier = before(tasks)
    ready = {task.name for task in tasks if task.migrator.startswith("create-") and task.migrator != "create-volume"}
    for name in moving:
        assert ready <= earlier[f"fence-{name}"]
        assert not [need for need in earlier[f"fence-{name}"] if need.startswith(("stop", "bundle", "launch"))]


@given(moves())
def test_nothing_is_let_go_before_the_switch(
    move: tuple[Application, Deployment, list[str], tuple[Task, ...]],
) -> None:
    """The switch comes after every component was verified, and every release after the switch."""
    _, _, moving, tasks = move
    earlier = before(tasks)
    assert {f"verify-{name}" for name in moving} <= earlier["switch"]
    releases = [task.name for task in tasks if task.migrator.startswith("release-")]
    assert set(releases) == {"release-source", "release-temporary"}
    for release in releases:
        assert "switch" in earlier[release]
    others = {task.name for task in tasks} - {"switch", *releases}
    assert others <= earlier["switch"]


@given(moves())
def test_each_volume_goes_where_the_target_puts_it(
    move: tuple[Application, Deployment, list[str], tuple[Task, ...]],
) -> None:
    """A volume is fetched from where it is (its own, or the machine's disk), and becomes a volume at the target exactly
    when the target gives one."""
    application, deployment, moving, tasks = move
    names = {task.name for task in tasks}
    given_volumes = {task.subject for task in tasks if task.migrator == "create-volume"}
    for name in moving:
        for use in application.component(name).volumes:
            was_volume = bool(deployment.all("volume", resource=use.resource))
            assert (f"fetch-volume-{use.resource}" in names) == was_volume
            assert (f"upload-volume-{use.resource}" in names) == (use.resource in given_volumes)
            if use.resource in given_volumes:
                assert f"volume-{use.resource}" in before(tasks)[f"launch-{name}"]


@given(moves())
def test_each_task_is_at_the_right_vendor(
    move: tuple[Application, Deployment, list[str], tuple[Task, ...]],
) -> None:
    """What ends the source is done at the source, what begins the target at the target; buckets' keys are made where
    the buckets stay."""
    at = {
        "fence-machine": "source",
        "stop-machine": "source",
        "bundle-machine": "source",
        "bundle-volume": "source",
        "fetch": "source",
        "create-access-key": "source",
        "adapt": None,
        "release-source": None,
        "release-temporary": None,
    }
    for task in move[3]:
        assert task.vendor == at.get(task.migrator, "target")


def test_a_dependant_is_stopped_before_what_it_needs() -> None:
    """Components stop in the reverse of their start order, and start at the target in it."""
    front = Component(
        name="front", resource="machine", depends_on=("back",), commands=(Command(phase="start", line="run"),)
    )
    back = Component(name="back", resource="machine", commands=(Command(phase="start", line="run"),))
    machine = ResourceClass(name="machine", type=ResourceType.COMPUTE, cores=1)
    application = Application(name="n", resources=(machine,), tiers=(Tier(name="t", components=(front, back)),))
    deployment = as_deployed(application, "source")
    tasks = relocation_tasks(application, deployment, ["back", "front"], "target", [])
    earlier = before(tasks)
    assert "stop-front" in earlier["stop-back"]
    assert "verify-back" in earlier["launch-front"]
