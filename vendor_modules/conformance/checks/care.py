"""Care: credentials, errors, secrets, and the event loop that everybody shares."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable
from contextlib import suppress

from pydantic import SecretStr

from descriptors.base import MIB
from vendor_modules.capabilities import RELEASE_ORDER, ImageDownload, ImageUpload, inventory
from vendor_modules.conformance.bench import Bench, expect, refused
from vendor_modules.conformance.lender import longest_pause
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import WRONG_SECRET, wrong
from vendor_modules.conformance.ways import PUBLIC_KEY, WAYS, Of
from vendor_modules.errors import Unauthorized, VendorError
from vendor_modules.services.credentials import (
    AccessKeyCredentials,
    Credentials,
    ExternalCredentials,
    KeyPairCredentials,
    PasswordCredentials,
)

STRANGE_IDS = ["../../etc/passwd", "a/b:c@d", "x" * 255]
_WRONG = SecretStr(WRONG_SECRET)
STRANGERS: dict[str, Credentials] = {
    "key-pair": KeyPairCredentials(public_key=PUBLIC_KEY, private_key=_WRONG),
    "password": PasswordCredentials(username="nobody", password=_WRONG),
    "access-key": AccessKeyCredentials(access_key="nobody", secret_key=_WRONG),
    "external": ExternalCredentials(username="nobody", variable="CONFORMANCE_THERE_IS_NO_SUCH_VARIABLE"),
}
"""Credentials of each kind that open nothing."""
LONGEST_BLOCK = 1.0
"""Seconds that the event loop may stand still: a busy computer needs some, a blocking call takes more."""


@check()
async def wrong_credentials_are_unauthorized(bench: Bench) -> None:
    """With a wrong secret, listing and creating raise Unauthorized."""
    bench.need_credentials()
    spec = await bench.machine_spec()
    async with bench.another(wrong(bench.subject.credentials)) as stranger:
        await refused(stranger.list_machines(), Unauthorized, what="list machines with a wrong secret")
        call = stranger.create_machine(spec, key=bench.key())
        await refused(call, Unauthorized, what="create a machine with a wrong secret")


@check()
async def missing_credentials_are_unauthorized(bench: Bench) -> None:
    """A module that takes credentials and finds none raises Unauthorized."""
    bench.need_credentials()
    async with bench.another(None) as stranger:
        await refused(stranger.list_machines(), Unauthorized, what="list machines without credentials")


@check()
async def every_kind_of_credentials_is_answered(bench: Bench) -> None:
    """Credentials of each kind, with a secret that is wrong, are refused with Unauthorized in words: those of a kind
    that the module takes, and those that it does not."""
    bench.need_credentials()
    right = bench.subject.credentials.kind
    expect(right in type(bench.module).credential_kinds, f"{right} works, and is not among the credential kinds")
    for kind, strange in STRANGERS.items():
        async with bench.another(strange) as stranger:
            error = await refused(stranger.list_machines(), Unauthorized, what=f"list machines with a strange {kind}")
        expect(error.detail.strip(), f"the refusal of {kind} has no words")


@check()
async def secrets_are_not_in_errors(bench: Bench) -> None:
    """The error about a wrong secret does not tell it, nor does anything that the error came from."""
    bench.need_credentials()
    async with bench.another(wrong(bench.subject.credentials)) as stranger:
        error = await refused(stranger.list_machines(), Unauthorized, what="list machines with a wrong secret")
    origin: BaseException | None = error
    while origin is not None:
        text = "".join(traceback.format_exception(origin)) + repr(vars(origin))
        expect(
            WRONG_SECRET not in text, f"the secret is in the error, or in what it came from: {type(origin).__name__}"
        )
        origin = origin.__context__


@check()
async def secrets_are_not_in_the_log(bench: Bench) -> None:
    """Neither a right nor a wrong secret is logged."""
    await bench.module.list_machines()
    async with bench.another(wrong(bench.subject.credentials)) as stranger:
        with suppress(Unauthorized):  # where it is looked at
            await stranger.list_machines()
    logged = repr(bench.log.records)
    expect(not any(secret in logged for secret in (WRONG_SECRET, *bench.secrets)), "a secret is in the log")


@check()
async def secrets_are_not_in_representations(bench: Bench) -> None:
    """A module that has logged in does not show a secret when it, or what it holds, is printed."""
    await bench.module.list_machines()
    shown = repr(bench.module) + str(bench.module) + repr(vars(bench.module)) + repr(bench.module.settings)
    expect(not any(secret in shown for secret in bench.secrets), "a secret is shown")


@check()
async def only_vendor_errors_are_raised(bench: Bench) -> None:
    """Whatever id is asked for, nothing but a VendorError comes out of describing and destroying."""
    for kind in RELEASE_ORDER:
        if kind in WAYS and isinstance(bench.module, WAYS[kind].needs):
            for resource_id in STRANGE_IDS:
                await _only_vendor_error(Of(kind, bench).describe(resource_id), f"describe {kind} {resource_id!r}")
                await _only_vendor_error(Of(kind, bench).destroy(resource_id), f"destroy {kind} {resource_id!r}")


async def _only_vendor_error(call: Awaitable[object], what: str) -> None:
    try:
        await call
    except VendorError:
        pass
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        expect(False, f"{what} raised {type(error).__name__}, which is no VendorError: {error}")


@check()
async def errors_say_where_and_what_to_do(bench: Bench) -> None:
    """An error names vendor and operation, has words of its own, and a remedy."""
    error = await refused(bench.module.describe_machine(bench.unknown("machine")), VendorError, what="describe nothing")
    expect(error.vendor == bench.subject.vendor, f"its vendor is {error.vendor!r}")
    expect(error.operation, "it names no operation")
    expect(error.detail.strip() and error.remedy.strip(), f"its words are {error.detail!r}, {error.remedy!r}")


@check()
async def calls_may_be_made_at_once(bench: Bench) -> None:
    """Many calls at the same time on one module all succeed."""
    machine = (await bench.specimen("machine")).made
    calls = [bench.module.describe_machine(machine.id) for _ in range(20)]
    expect({m.id for m in await asyncio.gather(*calls)} == {machine.id}, "answers were mixed up")
    await asyncio.gather(*(bench.module.list_machines() for _ in range(10)), inventory(bench.module))


@check()
async def cancelled_call_does_no_harm(bench: Bench) -> None:
    """After a call was cancelled, the module goes on to work, and its key still gives one machine."""
    call = asyncio.ensure_future(bench.machine())
    await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    machine = await bench.machine()
    mine = [m.id for m in await bench.module.list_machines() if m.key == bench.key("machine")]
    expect(mine == [machine.id], f"with the cancelled call's key there are {mine}")


@check()
async def unused_module_can_be_closed(bench: Bench) -> None:
    """A module that was never asked for anything can be closed, and closing does not disturb another."""
    async with bench.another(bench.subject.credentials):
        pass
    async with bench.another(bench.subject.credentials) as used:
        await used.list_machines()
    await bench.module.list_machines()


@check()
async def event_loop_stays_free(bench: Bench) -> None:
    """While machines are made, listed and destroyed, the event loop never stands still for more than a second."""
    made = await bench.specimen("machine", "late")
    _expect_short(made.pause, "making and destroying a machine")
    async with longest_pause() as pause:
        await asyncio.gather(*(bench.module.list_machines() for _ in range(4)))
        await inventory(bench.module)
        await asyncio.sleep(0.05)  # let it see the last call too
    _expect_short(pause(), "listing")


@check(ImageUpload, ImageDownload)
async def event_loop_stays_free_in_transfers(bench: Bench) -> None:
    """While an image goes in and out, the event loop never stands still for more than a second."""
    content, size = bench.sample(16 * MIB), 0
    async with longest_pause() as pause:
        image = await bench.image(content)
        async for chunk in bench.the(ImageDownload).download_image(image.id):
            size += len(chunk)
        await asyncio.sleep(0.05)
    _expect_short(pause(), "transferring an image")
    expect(size == len(content), f"{size} bytes came out, expected {len(content)}")


def _expect_short(pause: float, what: str) -> None:
    expect(pause <= LONGEST_BLOCK, f"{what} made the event loop stand still for {pause:.1f} s")
