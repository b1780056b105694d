"""Content in transit: fetched from the source, adapted, uploaded to the target; hashed at every step."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from blake3 import blake3

from agency.problems import refuse
from agency.relocation.migrators.base import Creates, Migrator
from agency.relocation.migrators.configuration import disk_path, in_machine_disk, rewrite, values
from agency.relocation.workshop import Output, Run
from descriptors.application import Component
from descriptors.base import MIB
from descriptors.relocation import Task
from vendor_modules.capabilities import ImageDownload, ImageUpload
from vendor_modules.errors import Unavailable
from vendor_modules.resources import DiskFormat, Image, ImageSpec

FETCH_ATTEMPTS = 5
"""How often a broken download is taken up where it broke."""


def file_digest(path: Path) -> str:
    """BLAKE3 of a file, as ``blake3:…``."""
    return f"blake3:{blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()}"


class Fetch(Migrator):
    """Bring an image of the source's to the spool. What breaks goes on where it broke, also after a crash."""

    name = "fetch"
    needs = ImageDownload

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        module = run.module(task.vendor, ImageDownload)
        image = await module.describe_image(run.created(task.needs[0]).id)
        path = run.spooled(f"{task.name}.img")
        tell = run.progress(task, image.size)
        for attempt in range(FETCH_ATTEMPTS):
            try:
                await self._append(module, image, path, tell)
                break
            except Unavailable:
                if attempt == FETCH_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.2 * 2**attempt)
        digest = await asyncio.to_thread(file_digest, path)
        received = path.stat().st_size
        if image.size and received != image.size:
            path.unlink()
            raise refuse(
                "content-differs",
                f"{task.name}: received {received} bytes, but {task.vendor} says that it sent {image.size}",
                "try again; if it happens again the source's storage or the network is at fault",
            )
        if image.digest is not None and digest != image.digest:
            path.unlink()
            raise refuse(
                "content-differs",
                f"{task.name}: received {digest}, but {task.vendor} says that it sent {image.digest}",
                "try again; if it happens again the source's storage or the network is at fault",
            )
        return Output(bytes=received, digest=digest)

    @staticmethod
    async def _append(module: ImageDownload, image: Image, path: Path, tell: Callable[[int], None]) -> None:
        with path.open("ab") as file:
            async for chunk in module.download_image(image.id, offset=file.tell()):
                await asyncio.to_thread(file.write, chunk)
                tell(file.tell())

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        run.spooled(f"{task.name}.img").unlink(missing_ok=True)


class Adapt(Migrator):
    """Make the machine's image fit its new place: configuration rewritten, volumes put into its disk or taken out."""

    name = "adapt"

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        component = run.component(task)
        known = await values(component, run)
        source, target = run.spooled(f"fetch-machine-{component.name}.img"), run.spooled(f"{task.name}.img")
        await asyncio.to_thread(self._rebuild, component, known, run, source, target)
        return Output(bytes=0, digest=await asyncio.to_thread(file_digest, target))

    def _rebuild(self, component: Component, known: dict[str, str], run: Run, source: Path, target: Path) -> None:
        """Copy the bundle member by member. Only what a rule, or a volume's place, asks for is changed."""
        inside = {disk_path(use.resource): use.resource for use in component.volumes}
        with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as new:
            for member in old:
                content = old.extractfile(member) if member.isreg() else None
                resource = inside.get(member.name)
                if resource is not None and content is not None and not in_machine_disk(run, resource):
                    self._take_out(content, run.spooled(f"fetch-volume-{resource}.img"))
                    continue
                if content is not None and any(rule.file == member.name for rule in component.rewrites):
                    changed = rewrite(component, member.name, content.read(), known)
                    member.size, content = len(changed), io.BytesIO(changed)
                new.addfile(member, content)
            for path, resource in inside.items():
                volume = run.spooled(f"fetch-volume-{resource}.img")
                if in_machine_disk(run, resource) and volume.exists():
                    self._put_in(new, path, volume)

    @staticmethod
    def _take_out(content: IO[bytes], path: Path) -> None:
        with path.open("wb") as file:
            while chunk := content.read(MIB):
                file.write(chunk)

    @staticmethod
    def _put_in(bundle: tarfile.TarFile, path: str, volume: Path) -> None:
        member = tarfile.TarInfo(path)
        member.size, member.mode = volume.stat().st_size, 0o600
        with volume.open("rb") as file:
            bundle.addfile(member, file)

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        run.spooled(f"{task.name}.img").unlink(missing_ok=True)


class _Upload(Creates):
    """Bring a spooled file in as an image of the target's."""

    needs = ImageUpload
    kind = "image"
    temporary = True
    format: DiskFormat

    def path(self, task: Task, run: Run) -> Path:
        """The file to upload."""
        raise AssertionError("an upload says what it uploads")

    async def create(self, task: Task, run: Run) -> Image:
        """See :class:`Creates`."""
        path = self.path(task, run)
        size = path.stat().st_size
        tell = run.progress(task, size)

        async def content() -> AsyncIterator[bytes]:
            done = 0
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, MIB):
                    yield chunk
                    done += len(chunk)
                    tell(done)

        name = f"{run.order.application.name}-{task.subject}"
        spec = ImageSpec(name=name, format=self.format, size=size, digest=await asyncio.to_thread(file_digest, path))
        return await run.module(task.vendor, ImageUpload).upload_image(spec, content, key=run.key(task))


class UploadMachine(_Upload):
    """Bring the adapted machine's image in."""

    name = "upload-machine"
    format = DiskFormat.BUNDLE
    serves = "component"

    def path(self, task: Task, run: Run) -> Path:
        """See :class:`_Upload`."""
        return run.spooled(f"adapt-{task.subject}.img")


class UploadVolume(_Upload):
    """Bring a volume's content in."""

    name = "upload-volume"
    format = DiskFormat.RAW
    serves = "resource"

    def path(self, task: Task, run: Run) -> Path:
        """See :class:`_Upload`."""
        return run.spooled(f"fetch-volume-{task.subject}.img")
