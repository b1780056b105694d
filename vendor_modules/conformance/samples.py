"""Images to upload, small and valid, in each disk format."""

from __future__ import annotations

import io
import random
import struct
import tarfile

from descriptors.machine import BUNDLE_MANIFEST, MachineManifest
from vendor_modules.resources import DiskFormat

CLUSTER = 64 * 1024


def noise(size: int) -> bytes:
    """Bytes that no two places of have in common, with a stretch of zeros as disks have them; the same for a size."""
    generator = random.Random(size)  # noqa: S311 - reproducible on purpose
    return generator.randbytes(size // 2) + bytes(size // 4) + generator.randbytes(size - size // 2 - size // 4)


def sample(format_: DiskFormat, size: int) -> bytes:
    """An image of exactly ``size`` bytes if it is RAW, of a little more in another format."""
    makers = {DiskFormat.RAW: noise, DiskFormat.QCOW2: _qcow2, DiskFormat.BUNDLE: _bundle}
    return makers.get(format_, _container)(size)


def _qcow2(size: int) -> bytes:
    """Version 3, with its content in one run of clusters: header, level 1 and 2 tables, reference counts, data."""
    clusters = max(1, -(-size // CLUSTER))
    if clusters > CLUSTER // 8:
        raise ValueError("one level 2 table holds no more than 512 MiB")
    first, total = 5, 5 + clusters
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", 3, 0, 0, 16, clusters * CLUSTER, 0, 1, CLUSTER, 3 * CLUSTER, 1, 0, 0, 0, 0, 0, 4, 104,
    )  # fmt: skip
    level1 = struct.pack(">Q", 2 * CLUSTER | 1 << 63)
    level2 = b"".join(struct.pack(">Q", (first + number) * CLUSTER | 1 << 63) for number in range(clusters))
    counts = struct.pack(">H", 1) * total
    tables = (header, level1, level2, struct.pack(">Q", 4 * CLUSTER), counts)
    return b"".join(table.ljust(CLUSTER, b"\0") for table in tables) + noise(size).ljust(clusters * CLUSTER, b"\0")


def _bundle(size: int) -> bytes:
    manifest = MachineManifest(start="sleep 1000").model_dump_json().encode()
    return _archive({BUNDLE_MANIFEST: manifest, "content": noise(size)})


def _container(size: int) -> bytes:
    """An archive as LXD has it."""
    about = b"architecture: x86_64\ncreation_date: 1767225600\nproperties:\n  os: conformance\n"
    return _archive({"metadata.yaml": about, "rootfs/content": noise(size)})


def _archive(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()
