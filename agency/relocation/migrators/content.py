"""Content in transit: fetched from the source, adapted, uploaded to the target; by the transfer engine, which proves
it."""

from __future__ import annotations

import asyncio
import io
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

from blake3 import blake3

from agency.problems import AgencyError, refuse
from agency.relocation.migrators.base import Makes, Migrator
from agency.relocation.migrators.configuration import disk_path, in_machine_disk, rewrite, values
from agency.relocation.workshop import Output, Run
from agency.transfer.formats.opening import open_sink, open_source
from agency.transfer.formats.streams import ImageSink, ImageSource
from agency.transfer.local import copy
from agency.transfer.progress import Progress, Result
from agency.transfer.witness import Witness
from descriptors.application import Component
from descriptors.base import MIB, utc_now
from descriptors.relocation import Task
from vendor_modules.capabilities import ImageDownload, ImageUpload
from vendor_modules.resources import DiskFormat, Image, ImageSpec

UPLOAD_ATTEMPTS = 5
"""How often content is sent from its beginning when the provider breaks off."""
_TICK = 0.2
"""Seconds between two looks at whether the operation was cancelled."""


def file_digest(path: Path) -> str:
    """BLAKE3 of a file, as ``blake3:…``."""
    return f"blake3:{blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()}"


async def _moved(task: Task, run: Run, move: Callable[..., Result], stop: Callable[[], None]) -> Result:
    """What comes of ``move(scratch=…, progress=…, cancelled=…)``, which has ended when this returns or raises, as it
    does when the operation is cancelled. ``stop`` ends a wait for the vendor."""
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def tell(now: Progress) -> None:
        loop.call_soon_threadsafe(run.tell, task, now)

    # a thread of its own: it waits for the loop, where vendors' modules wait for the threads that the loop has for all
    thread = ThreadPoolExecutor(1)
    scratch = run.spooled(task.name).parent
    work = loop.run_in_executor(thread, partial(move, scratch=scratch, progress=tell, cancelled=stopped.is_set))
    try:
        while not (await asyncio.wait([work], timeout=_TICK))[0]:
            run.check()
        return work.result()
    except BaseException:
        stopped.set()
        stop()
        await asyncio.gather(work, return_exceptions=True)
        raise
    finally:
        thread.shutdown(wait=False)


class Fetch(Migrator):
    """Bring an image of the source's to the spool. What breaks goes on where it broke, also after a crash."""

    name = "fetch"
    needs = ImageDownload

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        started, path, here = utc_now(), run.spooled(f"{task.name}.img"), run.workshop.site.key
        module = run.module(task.vendor, ImageDownload)
        source = ImageSource(module, await module.describe_image(run.created(task.needs[0]).id))

        def fetch(cancelled: Callable[[], bool], **how: Any) -> Result:
            def hashing(_done: int, _size: int) -> None:
                if cancelled():
                    raise refuse("cancelled", "the relocation was cancelled", "apply it again")

            sink = open_sink(path.parent, path.name, source.size, "raw", hashing)
            with closing(source):
                return copy(source, sink, journal=_journal(path), cancelled=cancelled, **how)

        result = await _moved(task, run, fetch, source.interrupt)
        statement = Witness(here.name, here).testify(
            run.key(task), path.name, task.vendor or "", result.size, result.root, result.wire, started
        )
        return Output(bytes=result.size, digest=source.digest, manifest=statement)

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        path = run.spooled(f"{task.name}.img")
        for each in (path, *path.parent.glob(f".{path.name}.*")):
            each.unlink(missing_ok=True)


def _journal(path: Path) -> Path:
    """Beside what is fetched: what of it was fetched."""
    return path.with_name(f".{path.name}.journal")


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
                if chunk.count(0) == len(chunk):
                    file.seek(len(chunk), io.SEEK_CUR)  # a hole
                else:
                    file.write(chunk)
            file.truncate()

    @staticmethod
    def _put_in(bundle: tarfile.TarFile, path: str, volume: Path) -> None:
        member = tarfile.TarInfo(path)
        member.size, member.mode = volume.stat().st_size, 0o600
        with volume.open("rb") as file:
            bundle.addfile(member, file)

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        run.spooled(f"{task.name}.img").unlink(missing_ok=True)


class _Upload(Makes):
    """Bring a spooled file in as an image of the target's."""

    needs = ImageUpload
    kind = "image"
    temporary = True
    format: DiskFormat
    of: ClassVar[str]
    """The task whose file it is, of the same subject."""

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        started, here = utc_now(), run.workshop.site.key
        for left in reversed(range(UPLOAD_ATTEMPTS)):
            try:
                image, result = await self._upload(task, run)
                break
            except AgencyError as error:
                if not (error.problem.retryable and left):
                    raise
        statement = Witness(task.vendor or "", here).testify(
            run.key(task), image.name, here.name, result.size, result.root, result.wire, started
        )
        return self.made(task, run, image, statement)

    async def _upload(self, task: Task, run: Run) -> tuple[Image, Result]:
        name = f"{self.of}-{task.subject}"
        path, before = run.spooled(f"{name}.img"), run.outputs.get(name)
        with closing(await asyncio.to_thread(open_source, path, "raw")) as source:
            digest = await asyncio.to_thread(file_digest, path)
            if before and before.digest != digest:
                raise refuse(
                    "content-differs",
                    f"{task.name}: what {name} left in {path.parent} has changed since, or was lost",
                    "see that the agency's disk is in order, and nothing else writes there; then plan and apply again",
                )
            spec = ImageSpec(
                name=f"{run.order.application.name}-{task.subject}", format=self.format, size=source.size, digest=digest
            )
            sink = ImageSink(run.module(task.vendor, ImageUpload), spec, run.key(task))
            result = await _moved(task, run, partial(copy, source, sink), sink.interrupt)
        return sink.image, result


class UploadMachine(_Upload):
    """Bring the adapted machine's image in."""

    name = "upload-machine"
    format = DiskFormat.BUNDLE
    serves = "component"
    of = "adapt"


class UploadVolume(_Upload):
    """Bring a volume's content in."""

    name = "upload-volume"
    format = DiskFormat.RAW
    serves = "resource"
    of = "fetch-volume"
