"""Readying a descriptor for submission: the files that it names travel beside it, by their digests."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from descriptors.application import Application, Component, File, Tier


class MissingFile(Exception):
    """A file that the descriptor names cannot be read; the text says which."""


def gather(application: Application, directory: Path) -> tuple[Application, dict[str, bytes]]:
    """The descriptor with every file's digest and size, and the contents by digest. Sources are in ``directory``."""
    contents: dict[str, bytes] = {}

    def gathered(file: File) -> File:
        source = directory / file.source
        try:
            if not source.resolve().is_relative_to(directory.resolve()):
                raise MissingFile(f"the file {file.source!r} leads out of {directory}")
            content = source.read_bytes()
        except OSError as error:
            raise MissingFile(f"the file {file.source!r} cannot be read: {error.strerror} ({source})") from None
        digest = f"blake3:{blake3(content).hexdigest()}"
        contents[digest] = content
        return file.model_copy(update={"digest": digest, "size": len(content)})

    def with_files(component: Component) -> Component:
        return component.model_copy(update={"files": tuple(gathered(file) for file in component.files)})

    def with_components(tier: Tier) -> Tier:
        return tier.model_copy(update={"components": tuple(with_files(c) for c in tier.components)})

    return application.model_copy(update={"tiers": tuple(with_components(t) for t in application.tiers)}), contents
