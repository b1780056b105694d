"""The application descriptor: what a deployer submits. Tiers of components, the resource classes they use, and the
terms under which they may run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Self

import regex
from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_xml import attr, element, wrapped

from descriptors.base import (
    Bytes,
    Currency,
    Digest,
    Document,
    Element,
    Location,
    Misfit,
    Money,
    Name,
    Percent,
    Port,
    Printable,
    Quantity,
    Text,
    raise_misfits,
    relative_path,
)
from descriptors.resources import ResourceClass, ResourceType

RelativePath = Annotated[str, Field(max_length=1024), AfterValidator(relative_path)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$")]

PLACEHOLDER = re.compile(r"\{([a-z0-9.-]+(?:_[a-z]+)*)\}")
"""A value known only once resources exist: ``{volume.NAME.device}``, ``{bucket.NAME.endpoint}``,
``{bucket.NAME.access_key}``, ``{bucket.NAME.secret_key}``, ``{component.NAME.url}``."""

LARGEST_PATTERN = 100_000
"""Most nodes that a pattern may have once its repetitions are written out."""
_REPETITION = re.compile(r"\{([0-9]+)|\+")
_VERBOSE = re.compile(r"\(\?[A-Za-z0-9-]*x")


def _written_out(pattern: str) -> int:
    """No fewer nodes than the compiled pattern has.

    To compile is to write out what is repeated as often as it must be there, and once more for the rest:
    ``((a{1000}){1000}){1000}`` would take all of the machine's memory. What is repeated after a bracket or another
    repetition may be nested, so these counts are multiplied; of the single characters' counts the highest matters.
    """
    groups, single = 1, 2
    for found in _REPETITION.finditer(pattern):
        copies = int(found[1] or 1) + 1
        if pattern[found.start() - 1] in ")}?+*":
            groups *= copies
        else:
            single = max(single, copies)
    return len(pattern) * groups * single


Attribute = Literal[
    "price",
    "guarantees",
    "record",
    "locality",
    "carbon",
    "egress",
    "availability",
    "response-time",
    "throughput",
    "request-rate",
    "recovery-time",
    "recovery-point",
]
"""What offers are weighed by; see :mod:`broker.scoring`. ``guarantees``: all that may be guaranteed (the six after
``egress``, see :data:`descriptors.sla.Property`) and has no weight of its own."""


def _twice(places: Iterable[tuple[Location, str]], what: str) -> Iterator[Misfit]:
    seen: set[str] = set()
    for place, name in places:
        if name in seen:
            yield place, f"{what} {name!r} is there twice"
        seen.add(name)


class Weight(Element, tag="weight"):
    """How much an attribute counts when offers are compared; only the proportions matter."""

    attribute: Attribute = attr()
    value: Money = attr()


class Requirements(Element, tag="requirements"):
    """Terms for the application as a whole. Everything given is a hard constraint, but for what is preferred and how
    offers are weighed; what is not given is free."""

    regions: tuple[Label, ...] = element(tag="region", default=())
    """The application must run in one of these regions."""
    jurisdictions: tuple[Label, ...] = element(tag="jurisdiction", default=())
    """The vendor must be under one of these jurisdictions, such as ``EU`` or ``CH``."""
    availability: Percent | None = element(default=None)
    """Least availability that a vendor must guarantee, in percent of a month."""
    price_cap: Money | None = element(default=None)
    """Most that everything together may cost in a month (730 hours), in :attr:`currency`."""
    currency: Currency = element(default="EUR")
    """Vendors must be priced in it: prices in several currencies cannot be compared."""
    preferences: tuple[Label, ...] = element(tag="prefer", default=())
    """Regions and jurisdictions that would be better than others, the best first."""
    weights: tuple[Weight, ...] = element(tag="weight", default=())
    """How offers are weighed, where it is not as usual."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        weights = ((("weights", i), weight.attribute) for i, weight in enumerate(self.weights))
        raise_misfits("requirements", [*_twice(weights, "the weight of")])
        return self


class File(Element, tag="file"):
    """A file to upload into the machine."""

    source: RelativePath = attr()
    """Where it is, relative to the descriptor."""
    target: RelativePath = attr()
    """Where it goes, relative to the machine's working directory."""
    digest: Digest | None = attr(default=None)
    """Filled in at submission: the content is then in the agency's store under this digest."""
    size: Bytes | None = attr(default=None)


class Command(Element, tag="command"):
    """A command line to run in the machine's working directory (POSIX shell words; no shell is involved).

    ``install`` runs once, before the first start, in the order given. ``start`` is the service itself: it runs in the
    foreground, listens on the port given in the environment variable PORT, and ends on SIGTERM.
    """

    phase: Literal["install", "start"] = attr()
    line: Text


class Rewrite(Element, tag="rewrite"):
    """A configuration rule: in ``file``, replace every match of ``pattern`` by ``value``.

    Applied at deployment and again at every relocation, so it must match its own result. Patterns are Python's
    regular expressions in multi-line mode, as the library ``regex`` reads them; ``value`` is literal but for
    placeholders (see :data:`PLACEHOLDER`).
    """

    file: RelativePath = attr()
    pattern: Printable = attr(min_length=1, max_length=1024)
    value: Printable = attr(max_length=4096)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        if _VERBOSE.search(value):  # its spaces and comments would hide repetitions from us
            raise ValueError("a regular expression in verbose mode is of no use here: leave out the flag x")
        if _written_out(value) > LARGEST_PATTERN:
            raise ValueError("the regular expression repeats too much: use smaller or fewer repetitions, or * for +")
        try:
            regex.compile(value, regex.MULTILINE)
        except regex.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        except RecursionError:
            raise ValueError("the regular expression is nested too deeply") from None
        return value

    def expression(self) -> regex.Pattern[str]:
        """The pattern, ready to be used."""
        return regex.compile(self.pattern, regex.MULTILINE)

    def placeholders(self) -> list[str]:
        """The placeholders in :attr:`value`, without their braces."""
        return PLACEHOLDER.findall(self.value)


class VolumeUse(Element, tag="volume"):
    """A block volume the component uses, and the device it finds it at."""

    resource: Name = attr()
    device: RelativePath = attr(default="dev/vdb")


class BucketUse(Element, tag="bucket"):
    """An object store the component uses."""

    resource: Name = attr()


class Traffic(Element, tag="sends"):
    """What a component is expected to send: it costs egress where it leaves a vendor."""

    to: Name | None = attr(default=None)
    """The component that it sends it to; none: the world."""
    gib_month: Quantity = attr()


class Probe(Element):
    """An HTTP GET on the component's port that must answer 200."""

    path: Annotated[str, Field(pattern=r"^/[!-~]{0,1023}$")] = attr()


class Component(Element, tag="component"):
    """One program of the application: one machine, the storage it uses, what it is made of and how it is told well."""

    name: Name = attr()
    resource: Name = attr()
    """The COMPUTE resource class it runs on."""
    image: Name = attr(default="base")
    """The vendor's image to start from."""
    port: Port | None = attr(default=None)
    """The port that it serves, open to the world; none: nobody reaches it from outside."""
    depends_on: tuple[Name, ...] = element(tag="depends_on", default=())
    sends: tuple[Traffic, ...] = element(tag="sends", default=())
    volumes: tuple[VolumeUse, ...] = element(tag="volume", default=())
    buckets: tuple[BucketUse, ...] = element(tag="bucket", default=())
    files: tuple[File, ...] = element(tag="file", default=())
    commands: tuple[Command, ...] = element(tag="command", default=())
    rewrites: tuple[Rewrite, ...] = element(tag="rewrite", default=())
    health: Probe | None = element(tag="health", default=None)
    """Answers 200 when the component works."""
    content: Probe | None = element(tag="content", default=None)
    """Answers with all of the component's data in one deterministic form: the same data, the same bytes. Its hash
    proves a relocation."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if [command.phase for command in self.commands].count("start") != 1:
            raise ValueError(f"component {self.name!r}: needs exactly one command with phase='start'")
        if self.name in self.depends_on:
            raise ValueError(f"component {self.name!r} depends on itself: remove it from its depends_on")
        if any(traffic.to == self.name for traffic in self.sends):
            raise ValueError(f"component {self.name!r} sends to itself: remove that")
        if (self.health or self.content) and self.port is None:
            raise ValueError(f"component {self.name!r}: a health or content probe needs a port")
        raise_misfits("component", [*self._duplicates(), *self._bad_rewrites()])
        return self

    def _duplicates(self) -> Iterator[Misfit]:
        who = f"component {self.name!r}"
        yield from _twice(((("files", i), f.target) for i, f in enumerate(self.files)), f"{who}: file target")
        yield from _twice(((("sends", i), t.to or "the world") for i, t in enumerate(self.sends)), f"{who}: traffic to")
        yield from _twice(((("volumes", i), v.device) for i, v in enumerate(self.volumes)), f"{who}: device")

    def _bad_rewrites(self) -> Iterator[Misfit]:
        """Rewrites of no file, or with placeholders that this component cannot have filled in."""
        known = {f"volume.{v.resource}.device" for v in self.volumes}
        parts = ("endpoint", "access_key", "secret_key")
        known |= {f"bucket.{b.resource}.{part}" for b in self.buckets for part in parts}
        known |= {f"component.{name}.url" for name in self.depends_on}
        targets = {f.target for f in self.files}
        for i, rewrite in enumerate(self.rewrites):
            who = f"component {self.name!r}"
            if rewrite.file not in targets:
                yield ("rewrites", i), f"{who}: rewrite of {rewrite.file!r}, which is no file target"
            for name in rewrite.placeholders():
                if name not in known:
                    choices = ", ".join(sorted(known)) or "none"
                    yield ("rewrites", i), f"{who}: unknown placeholder {{{name}}}; known: {choices}"

    def uses(self) -> Iterator[tuple[Location, str, ResourceType, str | None]]:
        """The resource classes it uses: the field that says so, the name, and the type and kind it must have."""
        yield ("resource",), self.resource, ResourceType.COMPUTE, None
        for i, volume in enumerate(self.volumes):
            yield ("volumes", i, "resource"), volume.resource, ResourceType.STORAGE, "block"
        for i, bucket in enumerate(self.buckets):
            yield ("buckets", i, "resource"), bucket.resource, ResourceType.STORAGE, "object"

    def command(self, phase: Literal["install", "start"]) -> list[str]:
        """The command lines of one phase, in order."""
        return [command.line for command in self.commands if command.phase == phase]


class Tier(Element, tag="tier"):
    """A layer of the application, such as web or data: components that belong together."""

    name: Name = attr()
    components: tuple[Component, ...] = element(tag="component", min_length=1)


class Application(Document, tag="application"):
    """The application descriptor."""

    name: Name = attr()
    description: Text | None = element(default=None)
    requirements: Requirements = element(tag="requirements", default=Requirements())
    resources: tuple[ResourceClass, ...] = wrapped("resources", element(tag="resource", min_length=1))
    tiers: tuple[Tier, ...] = wrapped("tiers", element(tag="tier", min_length=1))

    @property
    def components(self) -> tuple[Component, ...]:
        """All components, in the order of their tiers."""
        return tuple(component for tier in self.tiers for component in tier.components)

    def component(self, name: str) -> Component:
        """The component of that name; ``KeyError`` if there is none."""
        return {c.name: c for c in self.components}[name]

    def resource(self, name: str) -> ResourceClass:
        """The resource class of that name; ``KeyError`` if there is none."""
        return {r.name: r for r in self.resources}[name]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        raise_misfits("application", [*self._duplicates(), *self._dangling()])
        self.start_order()
        return self

    def _places(self) -> Iterator[tuple[Location, Component]]:
        """Every component with the way to it."""
        for t, tier in enumerate(self.tiers):
            for c, component in enumerate(tier.components):
                yield ("tiers", t, "components", c), component

    def _duplicates(self) -> Iterator[Misfit]:
        yield from _twice(((("resources", i), r.name) for i, r in enumerate(self.resources)), "resource")
        yield from _twice(((("tiers", i), t.name) for i, t in enumerate(self.tiers)), "tier")
        yield from _twice(((place, c.name) for place, c in self._places()), "component")
        volumes = (
            ((*place, "volumes", i), volume.resource)
            for place, component in self._places()
            for i, volume in enumerate(component.volumes)
        )
        yield from _twice(volumes, "a block volume serves one component; volume")

    def _dangling(self) -> Iterator[Misfit]:
        """References to what is not there, or is something else."""
        components = {c.name for c in self.components}
        resources = {r.name: r for r in self.resources}
        for place, component in self._places():
            who = f"component {component.name!r}"
            for i, name in enumerate(component.depends_on):
                if name not in components:
                    yield (*place, "depends_on", i), f"{who} depends on {name!r}, which is no component"
            for i, traffic in enumerate(component.sends):
                if traffic.to is not None and traffic.to not in components:
                    yield (*place, "sends", i), f"{who} sends to {traffic.to!r}, which is no component"
            for where, name, wanted, kind in component.uses():
                if complaint := _unfit(resources.get(name), wanted, kind):
                    yield (*place, *where), f"{who} uses {name!r}: {complaint}"

    def needed(self, components: Iterable[str] | None = None) -> tuple[ResourceClass, ...]:
        """What the components need, or all of them: a machine each, and their storage; with all of them also what
        nobody uses."""
        chosen = [c for c in self.components if components is None or c.name in components]
        machines = [component.resource for component in chosen]
        storage = dict.fromkeys(name for c in chosen for _, name, kind, _ in c.uses() if kind is ResourceType.STORAGE)
        names = [*machines, *storage]
        if components is None:
            names += [resource.name for resource in self.resources if resource.name not in names]
        order = [resource.name for resource in self.resources]
        return tuple(self.resource(name) for name in sorted(names, key=order.index))

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Components that stay together, because they share an object store, in the order of their tiers."""
        groups: list[list[Component]] = []
        for component in self.components:
            buckets = {use.resource for use in component.buckets}
            joined = [g for g in groups if any(use.resource in buckets for c in g for use in c.buckets)]
            groups = [g for g in groups if g not in joined] + [[*(c for g in joined for c in g), component]]
        order = [c.name for c in self.components]
        named = [tuple(sorted((c.name for c in group), key=order.index)) for group in groups]
        return tuple(sorted(named, key=lambda group: order.index(group[0])))

    def start_order(self) -> list[Component]:
        """Components so that each comes after all that it depends on; ``ValueError`` names a circle."""
        order: TopologicalSorter[str] = TopologicalSorter({c.name: () for c in self.components})
        for component in self.components:
            order.add(component.name, *component.depends_on)
        try:
            names = list(order.static_order())
        except CycleError as error:
            circle = " → ".join(reversed(error.args[1]))
            raise ValueError(f"components depend on each other in a circle: {circle}") from None
        components = {c.name: c for c in self.components}
        return [components[name] for name in names]


def _unfit(resource: ResourceClass | None, wanted: ResourceType, kind: str | None) -> str | None:
    """What is wrong with using ``resource`` where one of that type and kind is wanted; None: nothing."""
    expected = f"expected a {_described(wanted, kind)}"
    if resource is None:
        return f"no such resource; {expected}"
    if (resource.type, resource.kind) != (wanted, kind):
        return f"{expected}, found a {_described(resource.type, resource.kind)}"
    return None


def _described(type_: ResourceType, kind: str | None) -> str:
    return f"{type_} resource" + (f" of kind {kind!r}" if kind else "")
