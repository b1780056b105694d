"""The qemu runtime: the same images as virtual machines, through a real cloud process and the Vendor Module."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from descriptors.machine import MachineManifest
from tests.labs.testbed import RunningCloud, start_cloud
from tests.vendor_modules.testbed.helpers import eventually
from vendor_modules.errors import ResourceFailed
from vendor_modules.resources import (
    AccessKey,
    Attachment,
    DiskFormat,
    Image,
    ImageSpec,
    Machine,
    MachineSpec,
    Status,
    UserData,
    VolumeSpec,
)
from vendor_modules.testbed.files import digest_of
from vendor_modules.testbed.module import TestbedModule
from vendor_modules.testbed.runtimes import qemu_system
from vendor_modules.testbed.runtimes.base import Guest, GuestFailed
from vendor_modules.testbed.runtimes.qemu import Qemu

EXAMPLE = Path(__file__).parents[3] / "examples" / "guestbook"
HELLO = b"hello from my own boot loader"


def _missing() -> str:
    try:
        qemu_system.check()
    except qemu_system.MissingPackages as error:
        return str(error)
    return "" if shutil.which("qemu-img") else "apt-get install qemu-utils"


pytestmark = pytest.mark.integration
needs_qemu = pytest.mark.skipif(bool(_missing()), reason=_missing() or "everything is here")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    """A cloud whose machines are virtual."""
    async with start_cloud(tmp_path / "qemu", name="virtual", runtime="qemu") as running:
        yield running


def _sized(name: str, image: str = "base", user_data: UserData | None = None, **fields: object) -> MachineSpec:
    return MachineSpec.model_validate(
        {"name": name, "image": image, "size": "small", "user_data": user_data, **fields},
    )


def _guestbook(key: AccessKey) -> UserData:
    template = (EXAMPLE / "guestbook.toml").read_text()
    template = template.replace("http://127.0.0.1:9000/guestbook", key.endpoint)
    template = template.replace("secret key", key.secret_key.get_secret_value()).replace("access key", key.access_key)
    files = {"guestbook.toml": template.encode(), "guestbook.py": (EXAMPLE / "guestbook.py").read_bytes()}
    install = ("python3 -m py_compile guestbook.py",)
    return UserData(files=files, manifest=MachineManifest(install=install, start="python3 guestbook.py"))


def _client(machine: Machine) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{machine.host}:{machine.port}", trust_env=False, timeout=20)


async def _content(machine: Machine) -> bytes:
    async with _client(machine) as client:
        assert (await client.get("/health")).status_code == 200
        return (await client.get("/content")).content


async def _sign(machine: Machine, text: str) -> None:
    async with _client(machine) as client:
        assert (await client.post("/entries", json={"name": "Ada", "text": text})).status_code == 201


async def _copy(image: Image, source: TestbedModule, target: TestbedModule) -> Image:
    assert image.digest
    spec = ImageSpec(name=image.name, format=image.format, size=image.size, digest=image.digest)
    return await target.upload_image(spec, lambda: source.download_image(image.id), key=image.id)


async def _copy_service(machine: Machine, source: TestbedModule, target: TestbedModule, key: str) -> Machine:
    """Make the stopped machine with its volume anew at another cloud."""
    bundle = await source.bundle_machine(machine.id, "bundle", key=f"{key}-bundle")
    disk = await source.bundle_volume(machine.volumes[0], "disk", key=f"{key}-disk")
    assert bundle.format is DiskFormat.BUNDLE
    moved, moved_disk = [await _copy(image, source, target) for image in (bundle, disk)]
    volume = await target.create_volume(VolumeSpec(name="data", size_mib=64, image=moved_disk.id), key=f"{key}-volume")
    attachment = Attachment(volume=volume.id, device="dev/vdb")
    return await target.create_machine(_sized("web", moved.id, volumes=(attachment,)), key=key)


@needs_qemu
async def test_one_image_runs_as_a_virtual_machine_and_as_a_process(cloud: RunningCloud, tmp_path: Path) -> None:
    """The guestbook boots as a virtual machine with a volume and an object store, keeps its data when it is stopped and
    started, and moves to an embedded cloud and back with the same content."""
    virtual = cloud.module
    bucket = await virtual.create_bucket("pictures", key="b")
    access = await virtual.create_access_key(bucket.id, internal=False, key="k")
    volume = await virtual.create_volume(VolumeSpec(name="data", size_mib=64), key="v")
    attachment = Attachment(volume=volume.id, device="dev/vdb")
    machine = await virtual.create_machine(_sized("web", "base", _guestbook(access), volumes=(attachment,)), key="m")
    await _sign(machine, "written in a virtual machine")
    async with _client(machine) as client:
        picture = (EXAMPLE / "picture.png").read_bytes()
        assert (await client.put("/pictures/hills.png", content=picture)).status_code == 201
    content = await _content(machine)

    await virtual.stop_machine(machine.id)
    assert cloud.guest_processes() == []
    machine = await virtual.start_machine(machine.id)
    assert await _content(machine) == content
    machine = await virtual.stop_machine(machine.id)
    assert "reboot: Power down" in await virtual.console(machine.id), "it was not switched off in an orderly way"

    async with start_cloud(tmp_path / "embedded", name="plain") as plain:
        process = await _copy_service(machine, virtual, plain.module, "there")
        assert await _content(process) == content
        await _sign(process, "written as a process")
        content = await _content(process)
        process = await plain.module.stop_machine(process.id)
        back = await _copy_service(process, plain.module, virtual, "back")
        assert await _content(back) == content


@needs_qemu
async def test_a_killed_cloud_takes_its_virtual_machines_along(cloud: RunningCloud) -> None:
    """After kill -9 of the cloud no QEMU is left."""
    await cloud.module.create_machine(_sized("idle"), key="m")
    assert any(_is_qemu(process) for process in cloud.guest_processes())
    await cloud.kill()
    await eventually(lambda: not cloud.guest_processes())


def _is_qemu(process: int) -> bool:
    return b"qemu-system" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]


@needs_qemu
async def test_what_goes_wrong_in_a_virtual_machine_is_said(cloud: RunningCloud) -> None:
    """A failing install command, a service that ends at once and one that ends later: each with its words."""
    later = "import http.server, os, threading; threading.Timer(3, os._exit, [7]).start(); " + (
        "http.server.HTTPServer(('', 8080), http.server.BaseHTTPRequestHandler).serve_forever()"
    )
    manifests = {
        "install": MachineManifest(install=("echo so far so good", "ls /no/such/file")),
        "at-once": MachineManifest(start="python3 -c 'print(\"enough $HOME\"); exit(5)'"),
        "later": MachineManifest(start=f'python3 -c "{later}"'),
    }
    install, at_once, up = await asyncio.gather(
        *(cloud.module.create_machine(_sized(n, "base", UserData(manifest=m)), key=n) for n, m in manifests.items()),
        return_exceptions=True,
    )
    assert isinstance(install, ResourceFailed)
    assert "install command ls /no/such/file ended with exit status 1" in str(install)
    assert isinstance(at_once, ResourceFailed)
    assert "the service ended with exit status 5: enough $HOME" in str(at_once), "a shell has read the command line"
    assert isinstance(up, Machine)
    ended = await cloud.module.wait_for_machine(up.id, Status.ERROR)
    assert "the service ended with exit status 7" in (ended.problem or "")


@needs_qemu
async def test_images_with_their_own_boot_loader_boot(cloud: RunningCloud, tmp_path: Path) -> None:
    """RAW and QCOW2 disks that a user uploads are booted from their own first sector."""
    raw, qcow2 = tmp_path / "own.raw", tmp_path / "own.qcow2"
    raw.write_bytes(_boot_sector())
    os.truncate(raw, 2**20)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)]
    await asyncio.to_thread(subprocess.run, convert, check=True)
    for file, format_ in ((raw, DiskFormat.RAW), (qcow2, DiskFormat.QCOW2)):
        image = await _upload(cloud.module, file, format_)
        machine = await cloud.module.create_machine(_sized("own", image.id), key=f"m-{format_}")
        for _ in range(1200):
            if HELLO.decode() in (console := await cloud.module.console(machine.id)):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"it does not boot: {console}")


def _boot_sector() -> bytes:
    """A program that writes HELLO to the first serial port and halts."""
    code = bytes.fromhex("31c08ed8 baf803 be157c ac 84c0 7403 ee ebf8 f4 ebfd") + HELLO + b"\r\n\0"
    return code.ljust(510, b"\0") + b"\x55\xaa"


async def _upload(module: TestbedModule, file: Path, format_: DiskFormat) -> Image:
    async def chunks() -> AsyncIterator[bytes]:
        yield file.read_bytes()

    spec = ImageSpec(name=file.name, format=format_, size=file.stat().st_size, digest=digest_of(file))
    return await module.upload_image(spec, chunks, key=f"i-{file.name}")


@pytest.mark.parametrize(("offset", "value"), [(8, 80), (72, 4)], ids=["backing file", "external data file"])
async def test_an_image_that_names_other_files_is_refused(tmp_path: Path, offset: int, value: int) -> None:
    """A QCOW2 that would have QEMU open another file of the cloud's computer makes no machine."""
    head = bytearray(struct.pack(">4sI", b"QFI\xfb", 3).ljust(112, b"\0"))
    struct.pack_into(">Q", head, offset, value)
    evil = tmp_path / "evil.qcow2"
    evil.write_bytes(head)
    runtime = Qemu(qemu_system.System(tmp_path, tmp_path, tmp_path), "tcg", "")
    guest = Guest("evil", tmp_path, port=1, cores=1, memory_mib=256)
    with pytest.raises(GuestFailed, match="stands alone"):
        await runtime.create(guest, evil, DiskFormat.QCOW2, None)
    assert [file.name for file in tmp_path.iterdir()] == ["evil.qcow2"]


async def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a computer without QEMU, the cloud does not start and says what to install."""
    monkeypatch.setattr(qemu_system, "SEARCH", str(tmp_path))
    with pytest.raises(
        qemu_system.MissingPackages, match=r"apt-get install busybox-static e2fsprogs .*qemu-system-x86"
    ):
        qemu_system.prepare(tmp_path)


def test_archives_for_the_kernel_are_read_by_others(tmp_path: Path) -> None:
    """What our cpio writer writes, another program unpacks."""
    archive = qemu_system.cpio({"a/b/file": (b"content", 0o640), "run": (b"x" * 4097, 0o755)}, ("empty",))
    subprocess.run(["busybox", "cpio", "-id"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o755
    assert list((tmp_path / "empty").iterdir()) == []
