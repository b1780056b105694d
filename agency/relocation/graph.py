"""The graphs of tasks: what is done to deploy an application, and what to move it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from descriptors.application import Application, Component
from descriptors.deployment import Deployment
from descriptors.relocation import Task
from descriptors.resources import ResourceType
from descriptors.sla import Allocation
from vendor_modules.proposals import MACHINE_DISK


@dataclass
class _Graph:
    """Tasks in the order they were added: each is added after all that it needs."""

    tasks: list[Task] = field(default_factory=list)

    def add(
        self, name: str, migrator: str, vendor: str | None, subject: str | None = None, needs: Iterable[str] = ()
    ) -> str:
        self.tasks.append(Task(name=name, migrator=migrator, vendor=vendor, subject=subject, needs=tuple(needs)))
        return name

    def has(self, name: str) -> bool:
        return any(task.name == name for task in self.tasks)

    def present(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.has(name)]


def deployment_tasks(application: Application, places: Mapping[str, str]) -> tuple[Task, ...]:
    """Everything at the vendors that the components are to be at: keys, rules, addresses and storage side by side, then
    machines in their start order. What no component uses is at the first one's."""
    graph = _Graph()
    for vendor in dict.fromkeys(places.values()):
        graph.add(f"key-pair-{vendor}", "create-key-pair", vendor)
    users = {name: component.name for component in application.components for _, name, _, _ in component.uses()}
    for resource in application.resources:
        if resource.type is not ResourceType.STORAGE:
            continue
        vendor = places[users.get(resource.name, application.components[0].name)]
        if resource.kind == "block":
            graph.add(f"volume-{resource.name}", "create-volume", vendor, resource.name)
        else:
            bucket = graph.add(f"bucket-{resource.name}", "create-bucket", vendor, resource.name)
            graph.add(f"access-key-{resource.name}", "create-access-key", vendor, resource.name, [bucket])
    for component in application.start_order():
        vendor = places[component.name]
        surroundings = [f"key-pair-{vendor}", *_surroundings(graph, component, vendor)]
        surroundings += [f"volume-{use.resource}" for use in component.volumes]
        surroundings += [f"access-key-{use.resource}" for use in component.buckets]
        dependencies = [name for d in component.depends_on for name in graph.present([f"publish-{d}", f"verify-{d}"])]
        launched = graph.add(
            f"launch-{component.name}", "launch-machine", vendor, component.name, [*surroundings, *dependencies]
        )
        verified = graph.add(f"verify-{component.name}", "verify-machine", vendor, component.name, [launched])
        if component.port:
            graph.add(f"publish-{component.name}", "publish", vendor, component.name, [verified])
    return tuple(graph.tasks)


def _surroundings(graph: _Graph, component: Component, vendor: str) -> list[str]:
    names = [graph.add(f"security-group-{component.name}", "create-security-group", vendor, component.name)]
    if component.port:
        names.append(graph.add(f"address-{component.name}", "create-address", vendor, component.name))
    return names


def relocation_tasks(
    application: Application, deployment: Deployment, moving: Sequence[str], target: str, gives: Sequence[Allocation]
) -> tuple[Task, ...]:
    """Move some components to ``target``, which gives the allocations.

    What needs no stopped machine comes first. Then the downtime begins: fence, stop, bundle, fetch, adapt, upload,
    launch, verify. It ends with the switch, after which the source and whatever was temporary are released.
    A component comes after those that it depends on, which it reaches at their new addresses already; it is fenced
    before them, while it still works.
    """
    graph = _Graph()
    components = [c for c in application.start_order() if c.name in moving]
    ready = _prepare(graph, components, deployment, target)
    _take_down(graph, components, deployment, ready)
    for component in components:
        _carry_over(graph, component, deployment, target, gives)
        if component.port and any(component.name in other.depends_on for other in components):
            graph.add(f"publish-{component.name}", "publish", target, component.name, [f"verify-{component.name}"])
    verified = [f"verify-{component.name}" for component in components]
    switched = graph.add("switch", "switch", target, None, verified)
    graph.add("release-source", "release-source", None, None, [switched])
    graph.add("release-temporary", "release-temporary", None, None, [switched])
    return tuple(graph.tasks)


def _prepare(graph: _Graph, components: Sequence[Component], deployment: Deployment, target: str) -> list[str]:
    names = [graph.add(f"key-pair-{target}", "create-key-pair", target)]
    for component in components:
        names += _surroundings(graph, component, target)
    for resource in dict.fromkeys(use.resource for component in components for use in component.buckets):
        vendor = deployment.the("bucket", resource=resource).vendor
        names.append(graph.add(f"access-key-{resource}", "create-access-key", vendor, resource))
    return names


def _take_down(graph: _Graph, components: Sequence[Component], deployment: Deployment, ready: list[str]) -> None:
    fenced: list[str] = []
    for component in reversed(components):
        dependants = [f"fence-{other.name}" for other in components if component.name in other.depends_on]
        vendor = deployment.vendor_of(component.name)
        fenced.append(
            graph.add(f"fence-{component.name}", "fence-machine", vendor, component.name, [*ready, *dependants])
        )
    for component in reversed(components):
        dependants = [f"stop-{other.name}" for other in components if component.name in other.depends_on]
        vendor = deployment.vendor_of(component.name)
        graph.add(f"stop-{component.name}", "stop-machine", vendor, component.name, [*fenced, *dependants])


def _carry_over(
    graph: _Graph, component: Component, deployment: Deployment, target: str, gives: Sequence[Allocation]
) -> None:
    name, source = component.name, deployment.vendor_of(component.name)
    stopped = [f"stop-{name}"]
    bundled = graph.add(f"bundle-machine-{name}", "bundle-machine", source, name, stopped)
    fetched = [graph.add(f"fetch-machine-{name}", "fetch", source, name, [bundled])]
    for use in component.volumes:
        if deployment.all("volume", resource=use.resource):
            bundled = graph.add(f"bundle-volume-{use.resource}", "bundle-volume", source, use.resource, stopped)
            fetched.append(graph.add(f"fetch-volume-{use.resource}", "fetch", source, use.resource, [bundled]))
    adapted = graph.add(f"adapt-{name}", "adapt", None, name, fetched)
    needed = [graph.add(f"upload-machine-{name}", "upload-machine", target, name, [adapted])]
    in_disk = {allocation.resource for allocation in gives if allocation.size == MACHINE_DISK}
    for use in component.volumes:
        if use.resource not in in_disk:
            uploaded = graph.add(f"upload-volume-{use.resource}", "upload-volume", target, use.resource, [adapted])
            needed.append(graph.add(f"volume-{use.resource}", "create-volume", target, use.resource, [uploaded]))
    needed += graph.present(f"{done}-{other}" for other in component.depends_on for done in ("verify", "publish"))
    launched = graph.add(f"launch-{name}", "launch-machine", target, name, needed)
    graph.add(f"verify-{name}", "verify-machine", target, name, [launched])
