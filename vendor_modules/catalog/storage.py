"""The catalogue's files: ``catalogue.db``, made from the price list that libcloud ships and from those in ``given/``.

The database is never changed in place: a new one is written beside it, flushed, and renamed over it, under a lock, so
that readers see the old one or the new one and two builders build once. What it was made from is noted in it; where
that is not what is there now, or it cannot be read, it is made anew. What users gave is kept as they gave it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vendor_modules.catalog.errors import BadPriceFile, Unusable

if TYPE_CHECKING:
    from vendor_modules.catalog.rows import Batch

FORMAT = 1
"""Raise it when the tables, or the meaning of what is in them, change."""
MACHINE_TYPES = Path(__file__).with_name("machine_types.csv")
_GIVEN = re.compile(r"(\d{6})\.(\d{4}-\d\d-\d\d)\.(.+)", re.DOTALL)
_LONGEST_NAME = 50  # characters of a given file's own name that are kept: four bytes each at most, 255 may be used


class Given(NamedTuple):
    """A kept file: its number in the order of giving, the day on which it was given, and its own name."""

    path: Path
    number: int
    day: str
    name: str


class Storage:
    """The folder of one catalogue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._database = folder / "catalogue.db"
        self._given = folder / "given"

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to a catalogue that is up to date; made first where it must be. For one thread."""
        with self._explained():
            connection = self._current() or self._made()
            try:
                yield connection
            finally:
                connection.close()

    def rebuild(self) -> None:
        """Make the database anew, whatever is there."""
        with self._explained(), self._locked():
            self._build()

    def take(self, file: Path) -> Batch:
        """Take in a file that the user gives, for good; its rows replace all of the same providers. BadPriceFile if it
        is none, and then nothing is changed."""
        from vendor_modules.catalog import building

        name, day = file.name[-_LONGEST_NAME:], building.today()
        content = building.content_of(file)
        batch = building.read(name, content, day)
        with self._explained(), self._locked():
            self._given.mkdir(mode=0o700, exist_ok=True)
            number = max((given.number for given in self._kept()), default=0) + 1
            path = self._given / f"{number:06}.{day}.{name}"
            new = self._given / "new"
            new.write_bytes(content)
            _renamed_durably(new, path)
            try:
                self._build()
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return batch

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unusable(f"the price catalogue in {self.folder} cannot be used: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        for folder in (self.folder.parent, self.folder):  # the state directory is its owner's alone, whoever makes it
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # closing lets go of it
            yield

    def _made(self) -> sqlite3.Connection:
        with self._locked():
            connection = self._current()  # somebody else may have made it while this one waited for the lock
            if connection is None:
                self._build()
                connection = self._current()
        if connection is None:
            raise Unusable(f"the price catalogue in {self.folder} cannot be read after it was made")
        return connection

    def _current(self) -> sqlite3.Connection | None:
        """A connection, if the database is there, can be read, and was made from what is there now."""
        if not self._database.exists():
            return None
        # immutable: nobody ever writes into it, so that nothing needs locking
        connection = sqlite3.connect(f"{self._database.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            (found,) = connection.execute("SELECT fingerprint FROM made_from").fetchone() or ("",)
            if found == _fingerprint(given.path for given in self._kept()):
                return connection
        except sqlite3.Error:
            pass  # damaged, or not ours: it is made anew
        connection.close()
        return None

    def _kept(self) -> list[Given]:
        """The files that users gave, in the order of giving."""
        try:
            paths = sorted(self._given.iterdir())
        except FileNotFoundError:
            return []
        matches = [(path, _GIVEN.fullmatch(path.name)) for path in paths]
        return [Given(path, int(match[1]), match[2], match[3]) for path, match in matches if match]

    def _build(self) -> None:
        """Make the database, and forget the given files all of whose providers were given again later. Needs the
        lock."""
        from vendor_modules.catalog import building

        kept, batches = self._kept(), [building.shipped(*shipped_files())]
        for given in kept:
            try:
                batches.append(building.read(given.name, given.path.read_bytes(), given.day))
            except BadPriceFile as error:
                raise Unusable(f"{given.path}, which was given once, cannot be read any more: {error}") from error
        owners = building.owners(batches)
        needed = [given for number, given in enumerate(kept, start=1) if number in owners.values()]
        new = self.folder / "catalogue.new"
        try:
            building.write(new, batches, owners, _fingerprint(given.path for given in needed))
            for given in kept:
                if given not in needed:
                    given.path.unlink()
            _renamed_durably(new, self._database)
        finally:
            new.unlink(missing_ok=True)


def shipped_files() -> tuple[Path, Path]:
    """libcloud's price list and its EC2 machine types; found without importing libcloud, which is slow."""
    spec = importlib.util.find_spec("libcloud")
    if spec is None or not spec.submodule_search_locations:
        raise Unusable("libcloud, whose price list fills the catalogue, is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return folder / "data" / "pricing.json", folder / "compute" / "constants" / "ec2_instance_types.py"


def _fingerprint(given: Iterable[Path]) -> str:
    """What the database depends on: where a size or a time differs, a file is taken for changed."""
    stats = [(path.name, path.stat()) for path in (*shipped_files(), MACHINE_TYPES, *given)]
    return f"{FORMAT} " + " ".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


def _renamed_durably(new: Path, path: Path) -> None:
    _flushed(new)
    new.replace(path)
    _flushed(path.parent)


def _flushed(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
