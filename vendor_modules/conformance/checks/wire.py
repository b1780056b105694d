"""What goes wrong on the way to a provider: the suite puts a proxy in between that loses, refuses, stalls and lies."""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from vendor_modules.capabilities import ImageDownload, ImageUpload, Objects, release
from vendor_modules.conformance.bench import Bench, CheckFailed, expect, refused, stream
from vendor_modules.conformance.checks.images import download
from vendor_modules.conformance.checks.kinds import KINDS, each_kind
from vendor_modules.conformance.faults import (
    Answer,
    Exchange,
    Fault,
    Proxy,
    Request,
    junk,
    logs_in,
    lost_reply,
    refusing,
    remembered,
    removes,
    reset,
    slow,
    swallowed,
    truncated,
    twice,
)
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.samples import noise
from vendor_modules.conformance.ways import Of
from vendor_modules.errors import (
    ProtocolError,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.module import LONGEST_WAIT, VendorModule
from vendor_modules.services.persistence import ResourceRecord

BOUNDED = 40
"""Requests that one call may make at most before it gives up."""
MOST_CALLS = 3
"""How many of the requests of one creation lose their answer, one in each attempt."""
LARGE = 100_000
_CHEAP = tuple(kind for kind in KINDS if kind != "machine")


@asynccontextmanager
async def _through(bench: Bench, **changes: Any) -> AsyncIterator[tuple[VendorModule, Proxy]]:
    """A module for the same vendor that goes through a proxy, and has logged in; ``changes`` are made to its class."""
    async with Proxy() as proxy:
        settings = bench.subject.settings.model_copy(update={"proxy": proxy.url})
        async with bench.another(bench.subject.credentials, settings=settings, **changes) as module:
            await module.list_machines()
            if not proxy.requests and proxy.tunnels:
                raise Unsupported("speaks TLS with its provider here: faults cannot be put in between")
            expect(proxy.requests, "its requests do not go through the proxy that its settings name")
            yield module, proxy


def _asks(bench: Bench) -> Callable[[Request], bool]:
    return lambda request: not bench.subject.writes(request) and not logs_in(request)


async def _ids(of: Of) -> set[str]:
    await asyncio.sleep(of.bench.module.visible_within)
    return {resource.id for resource in await of.list()}


async def _made_in_the_end(of: Of, word: str, module: VendorModule) -> Any:
    """Created; when the module gives up with an error that says that a retry can help, created at the second call."""
    try:
        return await of.create(word, module=module)
    except VendorError as error:
        expect(error.retryable, f"it ended with {type(error).__name__}, which says that no retry helps: {error}")
    return await of.create(word, module=module)


async def _expect_one_more(of: Of, before: set[str], made: Any) -> None:
    new = await _ids(of) - before
    surplus = new - {made.id}
    for one in surplus:
        await of.destroy(one)
    expect(not surplus, f"besides {made.id} there are {', '.join(sorted(surplus))}")
    expect(made.id in new, f"{made.id} is not in the list")


# --- creations ---


@each_kind(wire=True)
async def is_made_once_when_the_answer_is_lost(of: Of) -> None:
    """When the creation of a KIND is done and its answer is lost, there is one in the end, and the key gives it."""
    for number in range(1 if of.kind == "machine" else MOST_CALLS):
        await of.bench.specimen(of.kind)  # with what it needs, so that what follows is the creation only
        before = await _ids(of)
        async with _through(of.bench) as (module, proxy):
            fault = proxy.arm(lost_reply, of.bench.subject.writes, spare=number)
            made = await _made_in_the_end(of, f"lost-{number}", module)
        expect(fault.hits or number, "its creation makes no request that the suite takes for one: set Subject.writes")
        await _expect_one_more(of, before, made)
        again = await of.create(f"lost-{number}")
        expect(again.id == made.id, f"the key gave {made.id} and then {again.id}")
        if not fault.hits:
            return


@each_kind(wire=True)
async def is_made_once_when_the_request_is_repeated(of: Of) -> None:
    """When something in between delivers the request that creates a KIND twice, there is one in the end."""
    await of.bench.specimen(of.kind)
    before = await _ids(of)
    async with _through(of.bench) as (module, proxy):
        fault = proxy.arm(twice, of.bench.subject.writes)
        await _made_in_the_end(of, "twice", module)
        made = await of.create("twice", module=module)  # where it may see what is too many
    expect(fault.hits, "its creation makes no request that the suite takes for one: set Subject.writes")
    await _expect_one_more(of, before, made)


@each_kind(wire=True, kinds=_CHEAP)
async def is_made_although_the_provider_stumbles(of: Of) -> None:
    """When the provider is out of order for a moment as a KIND is created, it is made, and once."""
    await of.bench.specimen(of.kind)
    before = await _ids(of)
    async with _through(of.bench) as (module, proxy):
        proxy.arm(refusing(503), of.bench.subject.writes)
        proxy.arm(reset, of.bench.subject.writes)
        made = await _made_in_the_end(of, "stumbled", module)
    await _expect_one_more(of, before, made)


@each_kind(wire=True, kinds=_CHEAP)
async def is_made_although_the_session_has_ended(of: Of) -> None:
    """When the session has expired as a KIND is created, the module logs in again and makes it; where there are no
    sessions, it is Unauthorized and none is made."""
    await of.bench.specimen(of.kind)
    before = await _ids(of)
    async with _through(of.bench) as (module, proxy):
        proxy.arm(refusing(401), of.bench.subject.writes)
        try:
            made = await of.create("expired", module=module)
        except Unauthorized:
            expect(not any(map(logs_in, proxy.requests)), "it can log in, and did not do so again")
            expect(await _ids(of) == before, "it was refused, and made all the same")
            return
    await _expect_one_more(of, before, made)


@each_kind(wire=True)
async def is_found_when_its_creation_failed(of: Of) -> None:
    """When the creation of a KIND fails half way, whatever is left of it is found by its key and removed."""
    key = of.bench.key("failed")
    await of.bench.specimen(of.kind)
    before = await _ids(of)
    for number in range(1 if of.kind == "machine" else 0, MOST_CALLS):
        async with _through(of.bench, attempts=2) as (module, proxy):
            proxy.arm(refusing(500), of.bench.subject.writes, times=None, spare=number)
            try:
                await of.create("failed", module=module)
            except VendorError:
                proxy.disarm()
                await asyncio.sleep(module.visible_within)
                await release(module, of.kind, key)
                done = False
            else:
                await of.bench.clear()
                done = True
        left = await _ids(of) - before
        for one in left:
            await of.destroy(one)
        expect(not left, f"{', '.join(sorted(left))} was left, and the key does not find it")
        if done:
            return


@each_kind(wire=True)
async def is_not_called_destroyed_when_it_is_there(of: Of) -> None:
    """When the provider says that a KIND is deleted and it is still there, destroying it raises an error."""
    if of.kind != "machine":
        await _destroyed_in_vain(of, (await of.create("stays")).id)
        return
    async with of.bench.machine_lent("second") as machine:
        await _destroyed_in_vain(of, machine.id)


async def _destroyed_in_vain(of: Of, resource_id: str) -> None:
    async with _through(of.bench, settle_timeout=of.bench.seconds(1), attempts=2) as (module, proxy):
        fault = proxy.arm(swallowed, removes, times=None)
        try:
            await getattr(module, f"destroy_{of.kind.replace('-', '_')}")(resource_id)
        except VendorError:
            pass
        else:
            there = await of.describe(resource_id) if fault.hits else None
            expect(not there, "it said that all is well, and nothing was deleted")
        if not fault.hits:
            raise Unsupported("removes with requests that the suite does not know as such")
    expect((await of.describe(resource_id)).id == resource_id, "it is gone: the fault did not happen")


@each_kind(wire=True, kinds=_CHEAP)
async def is_made_once_although_lists_lag(of: Of) -> None:
    """Where the provider's lists show a KIND later, a creation whose answer is lost is not made again before that."""
    visible = _lag(of.bench)
    await of.bench.specimen(of.kind)
    before = await _ids(of)
    async with _through(of.bench) as (module, proxy):
        proxy.remembering = True
        await Of(of.kind, of.bench).create("other", module=module)
        proxy.remembering = False
        stale = proxy.arm(remembered, _asks(of.bench), times=None)
        asyncio.get_running_loop().call_later(visible * 0.8, setattr, stale, "times", 0)
        proxy.arm(lost_reply, of.bench.subject.writes)
        made = await _made_in_the_end(of, "late", module)
    new = await _ids(of) - before
    expect(made.id in new and len(new) == 2, f"instead of 2 there are {len(new)} more")


@each_kind(wire=True, kinds=("machine", "volume", "snapshot", "image", "network", "load-balancer"))
async def is_waited_for_although_it_is_not_found_yet(of: Of) -> None:
    """Where the provider shows a KIND later, one that was made and is not found at first is waited for."""
    visible, key, now = _lag(of.bench), of.bench.key("unseen"), asyncio.get_running_loop().time
    seen_from: list[float] = []

    def note(record: ResourceRecord) -> None:
        if (record.kind, record.key, record.status) == (of.kind, key, "created"):
            seen_from.append(now() + visible * 0.8)

    def too_early(request: Request) -> bool:
        made = bool(seen_from) and _asks(of.bench)(request)
        return made and (not unseen.hits or now() < seen_from[0])  # however slow we are, the first is

    await of.bench.specimen(of.kind)
    async with _through(of.bench) as (module, proxy):
        unseen = proxy.arm(refusing(404), too_early, times=None)
        of.bench.persistence.on_save = note
        try:
            await of.create("unseen", module=module)
        except VendorError as error:
            raise CheckFailed(f"it is there, and creating it ended with {type(error).__name__}: {error}") from error


def _lag(bench: Bench) -> float:
    visible = type(bench.module).visible_within
    if not visible:
        raise Unsupported("has lists that show at once what was created (visible_within is 0)")
    return visible


# --- questions ---


@check(wire=True)
async def proxy_of_the_settings_is_used(bench: Bench) -> None:
    """With a proxy in its settings, all requests of the module go through it."""
    async with _through(bench) as (module, proxy):
        before = len(proxy.requests)
        await module.list_machines()
        expect(len(proxy.requests) > before, "the second list was asked for past the proxy")


@check(wire=True)
async def proxies_of_the_environment_are_not_used(bench: Bench) -> None:
    """The environment's proxy variables change nothing: only the settings do."""
    names = [name for scheme in ("http", "https", "all") for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper())]
    saved = {name: os.environ.get(name) for name in names}
    saved |= {name: os.environ.pop(name, None) for name in ("no_proxy", "NO_PROXY")}
    os.environ |= dict.fromkeys(names, "http://127.0.0.1:9")
    try:
        async with bench.another(bench.subject.credentials) as module:
            await module.list_machines()
    except VendorError as error:
        raise CheckFailed(f"with a proxy in the environment: {error}") from error
    finally:
        for name, value in saved.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


async def _still_lists(bench: Bench, *faults: Any) -> None:
    machine = (await bench.specimen("machine")).made
    async with _through(bench) as (module, proxy):
        armed = [proxy.arm(act, _asks(bench)) for act in faults]
        listed = [one.id for one in await module.list_machines()]
        expect(machine.id in listed, "the machine is not in the list")
        expect(armed[0].hits, "it asked nothing that the suite takes for a question: set Subject.writes")


@check(wire=True)
async def question_is_repeated_when_the_answer_is_lost(bench: Bench) -> None:
    """When the answer to a question is lost, the question is asked again."""
    await _still_lists(bench, lost_reply)


@check(wire=True)
async def question_is_repeated_when_the_connection_breaks(bench: Bench) -> None:
    """When the connection breaks before a question is delivered, it is asked again."""
    await _still_lists(bench, reset)


@check(wire=True)
async def question_is_repeated_when_the_answer_breaks_off(bench: Bench) -> None:
    """When an answer breaks off in its middle, the question is asked again, and the list is complete."""
    await _still_lists(bench, truncated)


@check(wire=True)
async def question_is_repeated_when_the_provider_stumbles(bench: Bench) -> None:
    """When the provider answers 500, 502 and then 503, the question is asked again."""
    await _still_lists(bench, refusing(500), refusing(502), refusing(503))


@check(wire=True)
async def throttled_question_is_repeated(bench: Bench) -> None:
    """When the provider asks for a pause of a second (429), the question is asked again after it."""
    await _still_lists(bench, refusing(429, retry_after=1))


@check(wire=True)
async def question_is_repeated_when_the_provider_is_busy(bench: Bench) -> None:
    """When the provider asks for a pause of a second (503 with Retry-After), the question is asked again after it."""
    await _still_lists(bench, refusing(503, retry_after=1))


@check(wire=True)
async def long_pause_is_left_to_the_caller(bench: Bench) -> None:
    """When the provider asks for a pause of an hour, the error says so at once, and how long it is."""
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(refusing(429, retry_after=3600), _asks(bench), times=None)
        error = await refused(module.list_machines(), Throttled, what="list machines when throttled for an hour")
        expect(isinstance(error, Throttled) and error.retry_after > LONGEST_WAIT, f"it says {vars(error)}")
        _expect_bounded(fault)


def _expect_bounded(fault: Fault) -> None:
    expect(0 < fault.hits <= BOUNDED, f"{fault.hits} requests were made, expected 1 to {BOUNDED}")


@check(wire=True)
async def outage_is_unavailable(bench: Bench) -> None:
    """When the provider is out of order, the error is Unavailable, after a bounded number of attempts; when it is back,
    the module works again."""
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(refusing(503), lambda _: True, times=None)
        await refused(module.list_machines(), Unavailable, what="list machines in an outage")
        _expect_bounded(fault)
        proxy.disarm()
        await module.list_machines()


@check(wire=True)
async def broken_line_is_unavailable(bench: Bench) -> None:
    """When every connection breaks, the error is Unavailable, after a bounded number of attempts; when the line is
    mended, the module works again."""
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(reset, lambda _: True, times=None)
        await refused(module.list_machines(), Unavailable, what="list machines with a broken line")
        _expect_bounded(fault)
        proxy.disarm()
        await module.list_machines()


@check(wire=True)
async def unreachable_provider_is_unavailable(bench: Bench) -> None:
    """When nothing answers at all, the error is Unavailable."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen; nor can anybody else meanwhile
        update = {"proxy": f"http://127.0.0.1:{nobody.getsockname()[1]}"}
        settings = bench.subject.settings.model_copy(update=update)
        async with bench.another(bench.subject.credentials, settings=settings) as module:
            await refused(module.list_machines(), Unavailable, what="list machines with nobody there")


@check(wire=True)
async def expired_session_is_renewed(bench: Bench) -> None:
    """When the session has expired, the module logs in again and goes on; where there are no sessions, it is
    Unauthorized."""
    async with _through(bench) as (module, proxy):
        proxy.arm(refusing(401), _asks(bench))
        try:
            await module.list_machines()
        except Unauthorized as error:
            expect(not any(map(logs_in, proxy.requests)), f"it can log in, and did not do so again: {error}")


@check(wire=True)
async def many_calls_renew_an_expired_session(bench: Bench) -> None:
    """When the session has expired for many calls at once, all of them go on after logging in again."""
    async with _through(bench) as (module, proxy):
        if not any(map(logs_in, proxy.requests)):
            raise Unsupported("has no sessions")
        proxy.arm(refusing(401), _asks(bench), times=4)
        await asyncio.gather(*(module.list_machines() for _ in range(4)))


@check(wire=True)
async def revoked_credentials_are_unauthorized(bench: Bench) -> None:
    """When the credentials are refused from now on, the error is Unauthorized, after a bounded number of attempts; when
    they are good again, the module works again."""
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(refusing(401), lambda _: True, times=None)
        await refused(module.list_machines(), Unauthorized, what="list machines with revoked credentials")
        _expect_bounded(fault)
        proxy.disarm()
        await module.list_machines()


@check(wire=True)
async def junk_is_a_protocol_error(bench: Bench) -> None:
    """When something else than the provider answers (the page of a hotel's network), the error is ProtocolError."""
    machine = (await bench.specimen("machine")).made
    async with _through(bench) as (module, proxy):
        proxy.arm(junk, _asks(bench), times=None)
        await refused(module.list_machines(), ProtocolError, what="list machines and get a hotel's page")
        await refused(module.describe_machine(machine.id), ProtocolError, what="describe one and get a hotel's page")


@check(wire=True)
async def junk_instead_of_a_session_is_a_protocol_error(bench: Bench) -> None:
    """When something else than the provider answers the login, the error is ProtocolError."""
    async with Proxy() as proxy:
        settings = bench.subject.settings.model_copy(update={"proxy": proxy.url})
        fault = proxy.arm(junk, logs_in, times=None)
        async with bench.another(bench.subject.credentials, settings=settings) as module:
            try:
                await module.list_machines()
            except VendorError as error:
                expect(isinstance(error, ProtocolError), f"it is {type(error).__name__}: {error}")
                return
    expect(not fault.hits, "it took a hotel's page for a session")
    raise Unsupported("has no sessions")


@check(wire=True)
async def answer_without_a_list_is_not_an_empty_list(bench: Bench) -> None:
    """When an answer has no list of machines in it, the error is ProtocolError: the account would seem to be empty."""

    async def hollow(exchange: Exchange) -> None:
        await exchange.answer(Answer(200, b"{}", (("Content-Type", "application/json"),)))

    async with _through(bench) as (module, proxy):
        proxy.arm(hollow, _asks(bench), times=None)
        await refused(module.list_machines(), ProtocolError, what="list machines and get an answer without a list")


@check(wire=True)
async def slow_answer_is_timed_out(bench: Bench) -> None:
    """When the provider does not answer within the module's time limit for a call, the error is TimedOut."""
    limit = bench.seconds(1)
    async with _through(bench, attempts=1) as (module, proxy):
        type(module).call_timeout = limit  # logging in may take longer
        proxy.arm(slow(3 * limit), _asks(bench), times=None)
        await refused(module.list_machines(), TimedOut, what="list machines when answers are slow")


@check(wire=True)
async def faults_do_not_show_secrets(bench: Bench) -> None:
    """Whatever goes wrong on the way, at the login or after it, no secret is in the error or in what it came from."""
    for act in (refusing(401), refusing(500), refusing(400), junk, reset, truncated):
        for matches in (lambda _: True, _asks(bench)):
            async with Proxy() as proxy:
                settings = bench.subject.settings.model_copy(update={"proxy": proxy.url})
                proxy.arm(act, matches, times=None)
                async with bench.another(bench.subject.credentials, settings=settings, attempts=1) as module:
                    try:
                        await module.list_machines()
                    except VendorError as error:
                        _expect_silent(bench, error)


def _expect_silent(bench: Bench, error: BaseException) -> None:
    origin: BaseException | None = error
    while origin is not None:
        shown = "".join(traceback.format_exception(origin)) + repr(vars(origin))
        expect(not any(secret in shown for secret in bench.secrets), f"a secret is in a {type(origin).__name__}")
        origin = origin.__context__


# --- transfers ---


def _cut_once() -> Callable[[Exchange], Any]:
    """Break off the first large answer in its middle, and pass on all others."""
    done = False

    async def act(exchange: Exchange) -> None:
        nonlocal done
        answer = await exchange.deliver()
        if done or len(answer.body) < LARGE:
            await exchange.answer(answer)
            return
        done = True
        whole = answer.encoded()
        exchange.cut(whole[: len(whole) - len(answer.body) // 2])

    return act


async def _in_two_parts(content: bytes, read: Callable[[int], AsyncIterator[bytes]]) -> None:
    got = b""
    try:
        async for chunk in read(0):
            got += chunk
    except Unavailable:
        pass
    except VendorError as error:
        raise CheckFailed(f"the broken transfer raised {type(error).__name__}, expected Unavailable") from error
    else:
        expect(got == content, f"the transfer ended without an error after {len(got)} of {len(content)} bytes")
        return  # the module itself went on from where it broke off
    expect(content.startswith(got), "what came before it broke off is not the beginning")
    async for chunk in read(len(got)):
        got += chunk
    expect(got == content, "with the rest, it is not the content")


@check(ImageUpload, ImageDownload, wire=True)
async def broken_download_can_be_gone_on_with(bench: Bench) -> None:
    """A download that breaks off in its middle is Unavailable, and the rest is had from the offset reached."""
    content = bench.sample(3 * 1024 * 1024)
    image = await bench.image(content)
    async with _through(bench) as (module, proxy):
        proxy.arm(_cut_once(), _asks(bench), times=None)
        assert isinstance(module, ImageDownload)  # noqa: S101 - the check needs it
        await _in_two_parts(content, lambda offset: module.download_image(image.id, offset=offset))


@check(ImageUpload, ImageDownload, wire=True)
async def broken_upload_is_repeated(bench: Bench) -> None:
    """An upload whose connection breaks in its middle is made again, or can be: the image is whole, and there once."""
    content, of = bench.sample(3 * 1024 * 1024), Of("image", bench)
    before = await _ids(of)
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(reset, lambda request: bench.subject.writes(request) and not request.body)
        bench_module, bench.module = bench.module, module
        try:
            try:
                image = await bench.image(content)
            except VendorError as error:
                expect(error.retryable, f"it ended with {type(error).__name__}: {error}")
                image = await bench.image(content)
        finally:
            bench.module = bench_module
    if not fault.hits:
        raise Unsupported("sends no image in one request that has no end in sight")
    await _expect_one_more(of, before, image)
    expect(await download(bench, image) == content, "it is not what was uploaded")


@check(Objects, wire=True)
async def broken_reading_can_be_gone_on_with(bench: Bench) -> None:
    """Reading an object that breaks off in its middle is Unavailable, and the rest is had from the offset reached."""
    content, bucket = noise(3 * 1024 * 1024), await Of("bucket", bench).create("bucket")
    await bench.the(Objects).put_object(bucket.id, "name", stream(content), size=len(content))
    async with _through(bench) as (module, proxy):
        proxy.arm(_cut_once(), _asks(bench), times=None)
        assert isinstance(module, Objects)  # noqa: S101 - the check needs it
        await _in_two_parts(content, lambda offset: module.get_object(bucket.id, "name", offset=offset))


@check(Objects, wire=True)
async def broken_writing_is_repeated(bench: Bench) -> None:
    """An object whose writing breaks off in its middle is written again, or can be, and is whole."""
    content, bucket = noise(3 * 1024 * 1024), await Of("bucket", bench).create("bucket")
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(reset, lambda request: bench.subject.writes(request) and not request.body)
        assert isinstance(module, Objects)  # noqa: S101 - the check needs it
        for _ in range(2):
            try:
                await module.put_object(bucket.id, "name", stream(content), size=len(content))
            except VendorError as error:
                expect(error.retryable, f"it ended with {type(error).__name__}: {error}")
    if not fault.hits:
        raise Unsupported("sends no object in one request that has no end in sight")
    chunks = bench.the(Objects).get_object(bucket.id, "name")
    expect(b"".join([chunk async for chunk in chunks]) == content, "it is not what was written")


@check(Objects, wire=True)
async def object_is_stored_although_the_answer_is_lost(bench: Bench) -> None:
    """An object whose storing is done and whose answer is lost is there once, with its content."""
    content, bucket = b"content" * 100, await Of("bucket", bench).create("bucket")
    async with _through(bench) as (module, proxy):
        fault = proxy.arm(lost_reply, bench.subject.writes)
        assert isinstance(module, Objects)  # noqa: S101 - the check needs it
        await module.put_object(bucket.id, "name", stream(content), size=len(content))
    expect(fault.hits, "it made no request that the suite takes for a change: set Subject.writes")
    listed = await bench.the(Objects).list_objects(bucket.id)
    expect([(one.name, one.size) for one in listed] == [("name", len(content))], f"listed are {listed}")
