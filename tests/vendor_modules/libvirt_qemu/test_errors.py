"""Whatever libvirt says is told in the words of the error tree."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from blake3 import blake3

from tests.labs.libvirt import Libvirt
from tests.labs.testbed import services
from vendor_modules import errors
from vendor_modules.errors import VendorError
from vendor_modules.libvirt_qemu.errors import BY_CODE, translate
from vendor_modules.libvirt_qemu.module import LibvirtModule
from vendor_modules.resources import DiskFormat, ImageSpec, MachineSpec, VolumeSpec
from vendor_modules.transfers import verified

RPC, QEMU, STORAGE = 7, 10, 18


class Said(Exception):
    """An error as libvirt-python has it."""

    def __init__(self, code: int, domain: int, words: str) -> None:
        super().__init__(words)
        self.get_error_code = lambda: code
        self.get_error_domain = lambda: domain


CASES = [
    (42, QEMU, "Domain not found", errors.NotFound),
    (50, STORAGE, "Storage volume not found", errors.NotFound),
    (49, STORAGE, "Storage pool not found", errors.InvalidRequest),
    (45, RPC, "authentication failed", errors.Unauthorized),
    (94, RPC, "authentication unavailable", errors.Unauthorized),
    (88, QEMU, "access denied", errors.Forbidden),
    (38, RPC, "Failed to connect socket", errors.Unavailable),
    (38, STORAGE, "cannot open file: Permission denied", errors.Forbidden),
    (38, STORAGE, "cannot fill file: No space left on device", errors.QuotaExceeded),
    (38, STORAGE, "cannot stat file", errors.ResourceFailed),
    (1, RPC, "client socket is closed", errors.Unavailable),
    (1, QEMU, "process exited while connecting to monitor", errors.ResourceFailed),
    (1, QEMU, "Could not set up host forwarding rule 'tcp:…'", errors.Unavailable),
    (1, QEMU, 'Failed to get "write" lock', errors.Conflict),
    (1, STORAGE, "pool 'default' has asynchronous jobs running.", errors.Conflict),
    (1, STORAGE, "something else", errors.ProtocolError),
    (55, QEMU, "domain is not running", errors.Conflict),
    (55, STORAGE, "volume 'v' is still being allocated.", errors.Unavailable),
    (68, QEMU, "cannot acquire state change lock", errors.TimedOut),
    (67, QEMU, "unsupported configuration", errors.InvalidRequest),
    (3, 0, "this function is not supported", errors.Unsupported),
    (12345, 0, "a number of the future", errors.ProtocolError),
]


@pytest.mark.parametrize(("code", "domain", "words", "expected"), CASES)
def test_libvirts_numbers_are_known(code: int, domain: int, words: str, expected: type[VendorError]) -> None:
    """Each of libvirt's errors becomes the one that says what to do, with libvirt's words."""
    error = translate(Said(code, domain, words))
    assert type(error) is expected
    assert error.detail == words


def test_the_numbers_are_libvirts() -> None:
    """The numbers written out in the module are those of the library that is installed."""
    libvirt = pytest.importorskip("libvirt", reason="pip install 'cloud-agency[libvirt]'")
    known = {value for name, value in vars(libvirt).items() if name.startswith("VIR_ERR_")}
    assert set(BY_CODE) <= known
    assert (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_OPERATION_INVALID) == (50, 55)
    assert (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_QEMU) == (7, 13, 10)


@pytest.mark.integration
async def test_a_daemon_that_is_not_there_is_unavailable(lab: Libvirt) -> None:
    """Without a libvirtd, and with a pool that it does not have, the errors say which of the two it is."""
    gone = lab.settings.model_copy(update={"uri": f"qemu+unix:///session?socket={lab.folder}/none"})
    async with LibvirtModule("gone", gone, services(lab.credentials)) as module:
        with pytest.raises(errors.Unavailable, match="Failed to connect socket"):
            await module.list_machines()
    poolless = lab.settings.model_copy(update={"pool": "none"})
    async with LibvirtModule("poolless", poolless, services(lab.credentials)) as module:
        with pytest.raises(errors.InvalidRequest, match="none"):
            await module.create_volume(VolumeSpec(name="v", size_mib=1), key="v")


@pytest.mark.integration
async def test_what_cannot_be_made_leaves_nothing(lab: Libvirt) -> None:
    """A machine that QEMU cannot start, and a QCOW2 that names another file of the host, are refused and leave no
    file in the pool."""
    async with LibvirtModule("libvirt", lab.settings, services(lab.credentials)) as module:
        before = sorted(path.name for path in (lab.folder / "pool").iterdir())
        huge = lab.settings.sizes[0].model_copy(update={"name": "huge", "memory_mib": 2**34})
        settings = lab.settings.model_copy(update={"sizes": (huge,)})
        async with LibvirtModule("huge", settings, services(lab.credentials)) as greedy:
            with pytest.raises(VendorError):
                await greedy.create_machine(MachineSpec(name="m", image="base", size="huge"), key="huge")
        content = b"QFI\xfb" + (3).to_bytes(4, "big") + (80).to_bytes(8, "big") + bytes(96)
        with pytest.raises(errors.InvalidRequest, match="stands alone"):
            await module.upload_image(_spec(content), lambda: _chunks(content), key="evil")
        assert await module.list_machines() == []
        assert sorted(path.name for path in (lab.folder / "pool").iterdir()) == before


async def test_content_is_held_against_what_was_declared() -> None:
    """Content that is not what was declared is found out before its last chunk is passed on."""
    content = verified(lambda: _chunks(b"one ", b"six"), _spec(b"one two"))
    assert await anext(content) == b"one "
    with pytest.raises(errors.InvalidRequest, match="not what was declared"):
        await anext(content)


def _spec(content: bytes) -> ImageSpec:
    digest = f"blake3:{blake3(content).hexdigest()}"
    return ImageSpec(name="image", format=DiskFormat.QCOW2, size=len(content), digest=digest)


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
