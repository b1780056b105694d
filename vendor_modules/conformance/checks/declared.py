"""What a module states of itself: who it is, its settings and credentials, and for every operation what it does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_args

from descriptors.deployment import Kind
from vendor_modules.abilities import Support
from vendor_modules.capabilities import CAPABILITIES, OPERATIONS, abilities, capabilities
from vendor_modules.conformance.bench import Bench, CheckFailed, expect, stream
from vendor_modules.conformance.registry import check, words
from vendor_modules.conformance.ways import WAYS, Of
from vendor_modules.errors import Unsupported, VendorError
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Status
from vendor_modules.services.credentials import Credentials


@check()
async def identity_is_stated(bench: Bench) -> None:
    """The class states its title, how far it is proven and by what, its settings and the credentials that it takes."""
    module, known = type(bench.module), {k.model_fields["kind"].default for k in get_args(get_args(Credentials)[0])}
    expect(module.title.strip(), "title is empty")
    expect(isinstance(module.proof, Proof), f"proof is {module.proof!r}, expected a Proof")
    expect(module.proven_by.strip(), "proven_by is empty: say in a sentence what the proof was")
    expect(issubclass(module.Settings, ModuleSettings), "Settings is no ModuleSettings")
    expect(set(module.credential_kinds) <= known, f"credential_kinds {module.credential_kinds} are not all known")
    expect(all(limit.strip() for limit in module.known_limits), "a known limit is empty")


@check()
async def settings_are_explained(bench: Bench) -> None:
    """The settings have a docstring, and each of the module's own fields has one too: forms are made from them."""
    kind = type(bench.module).Settings
    expect((kind.__doc__ or "").strip(), f"{kind.__name__} has no docstring")
    own = {name: field for name, field in kind.model_fields.items() if name not in ModuleSettings.model_fields}
    silent = [name for name, field in own.items() if not (field.description or "").strip()]
    expect(not silent, f"settings without a docstring below them: {', '.join(silent)}")


@check()
async def settings_survive_storage(bench: Bench) -> None:
    """The settings have a JSON schema, and come back equal from JSON."""
    settings = bench.subject.settings
    json.dumps(type(settings).model_json_schema())
    again = type(settings).model_validate_json(settings.model_dump_json())
    expect(again == settings, f"{settings!r} came back as {again!r}")


@check()
async def abilities_are_of_operations(bench: Bench) -> None:
    """What is declared concerns operations that there are, and no operation of a capability that the module lacks is
    declared to work."""
    module, able = type(bench.module), set(capabilities(type(bench.module)))
    known = {operation: capability for capability, operations in OPERATIONS.items() for operation in operations}
    for operation, ability in module.abilities.items():
        expect(operation in known, f"{operation!r} is declared, and is no operation")
        lacking = known[operation] not in able and operation != "attach_volume"
        expect(
            not (lacking and ability.support is not Support.UNSUPPORTED),
            f"{operation} is declared {ability.support}, and the module has no {known[operation]}",
        )
        expect(ability.largest_mib is None or ability.largest_mib > 0, f"{operation} has the limit 0")


@check()
async def emulation_is_explained(bench: Bench) -> None:
    """Whatever is emulated, or unsupported although its capability is there, has a note that says what that means."""
    module = type(bench.module)
    for operation, ability in module.abilities.items():
        told = ability.support in (Support.NATIVE, Support.ON_CREATION) or ability.note.strip()
        expect(told, f"{operation} is {ability.support}, and has no note")


# --- every operation does what is declared of it ---

Call = Callable[[Bench, Any], Awaitable[object]]


def _of_unknown(kind: Kind, operation: str, *more: Any) -> Call:
    return lambda bench, module: getattr(module, operation)(bench.unknown(kind), *more)


def _made(kind: Kind) -> Call:
    return lambda bench, module: bench.specimen(kind)


def _listed(operation: str) -> Call:
    return lambda bench, module: getattr(module, operation)()


def _read(kind: Kind, operation: str, *more: Any) -> Call:
    async def read(bench: Bench, module: Any) -> None:
        chunks: AsyncIterator[bytes] = getattr(module, operation)(bench.unknown(kind), *more)
        async for _ in chunks:
            pass

    return read


def _keyed(kind: Kind, operation: str, *more: Any) -> Call:
    return lambda bench, module: getattr(module, operation)(bench.unknown(kind), *more, key=bench.key(operation))


CALLS: dict[str, Call] = {
    "wait_for_machine": _of_unknown("machine", "wait_for_machine", Status.ACTIVE),
    "catalogue": _listed("catalogue"),
    "start_machine": _of_unknown("machine", "start_machine"),
    "stop_machine": _of_unknown("machine", "stop_machine"),
    "reboot_machine": _of_unknown("machine", "reboot_machine"),
    "console": _of_unknown("machine", "console"),
    "attach_volume": lambda bench, module: module.attach_volume(
        bench.unknown("volume"), bench.unknown("machine"), bench.subject.device
    ),
    "detach_volume": _of_unknown("volume", "detach_volume"),
    "upload_image": _made("image"),
    "download_image": _read("image", "download_image"),
    "bundle_machine": _keyed("machine", "bundle_machine", "name"),
    "bundle_volume": _keyed("volume", "bundle_volume", "name"),
    "associate_address": _of_unknown("address", "associate_address", None),
    "balance": _of_unknown("load-balancer", "balance", ()),
    "list_objects": _of_unknown("bucket", "list_objects"),
    "put_object": lambda bench, module: module.put_object(bench.unknown("bucket"), "name", stream(b"content"), size=7),
    "get_object": _read("bucket", "get_object", "name"),
    "delete_object": _of_unknown("bucket", "delete_object", "name"),
    "quotas": _listed("quotas"),
    "usage": _listed("usage"),
    "list_images": _listed("list_images"),
    "describe_image": _of_unknown("image", "describe_image"),
    "destroy_image": _of_unknown("image", "destroy_image"),
}
"""How each operation is called so that it does no harm: mostly on what is not there; what is made is lent."""
for _kind, _ways in WAYS.items():
    _name = _kind.replace("-", "_")
    CALLS |= {f"create_{_name}": _made(_kind)} if _kind != "image" else {}
    CALLS |= {name: _of_unknown(_kind, name) for name in (f"describe_{_name}", f"destroy_{_name}")}
    CALLS[f"list_{_ways.many(_kind)}"] = _listed(f"list_{_ways.many(_kind)}")


def _each_operation(function: Callable[[Bench, str], Awaitable[None]]) -> None:
    family = (f"operation-OPERATION-{function.__name__.replace('_', '-')}", words(function))
    for capability, operations in OPERATIONS.items():
        for operation in operations:
            if operation not in CALLS:
                continue

            async def one(bench: Bench, operation: str = operation) -> None:
                await function(bench, operation)

            one.__name__ = f"operation_{operation}_{function.__name__}"
            one.__module__ = function.__module__
            one.__doc__ = (function.__doc__ or "").replace("OPERATION", operation.replace("_", " "))
            check(CAPABILITIES[capability], family=family)(one)


async def is_as_declared(bench: Bench, operation: str) -> None:
    """Where "OPERATION" is declared unsupported it raises Unsupported, and nowhere else."""
    declared = abilities(type(bench.module))[operation].support
    try:
        await CALLS[operation](bench, bench.module)
    except Unsupported as error:
        if declared is not Support.UNSUPPORTED and not await _service_is_absent(bench, operation):
            raise CheckFailed(f"{operation} is declared {declared}, and raises Unsupported: {error}") from error
        if declared is not Support.UNSUPPORTED:
            raise
        return
    except VendorError:
        pass  # it tried: what it was asked for is not there
    expect(declared is not Support.UNSUPPORTED, f"{operation} is declared unsupported, and is done")


async def _service_is_absent(bench: Bench, operation: str) -> bool:
    """Whether the module has the capability, and this provider has no such service at all: nothing can be created."""
    own = next(name for name, operations in OPERATIONS.items() if operation in operations)
    kinds = [kind for kind in WAYS if kind != "machine" and issubclass(CAPABILITIES[own], WAYS[kind].needs)]
    for kind in kinds:
        try:
            await Of(kind, bench).create("probe")
        except Unsupported:
            return True
        except VendorError:
            pass
    return False


_each_operation(is_as_declared)
