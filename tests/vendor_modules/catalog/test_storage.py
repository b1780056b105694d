"""The catalogue's files survive whatever happens to them, and to those who make them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vendor_modules.catalog.conftest import PRICES
from vendor_modules.catalog import BadPriceFile, Catalog, Query, Unusable

ASK = """
import sys
from pathlib import Path
from vendor_modules.catalog import Catalog, Query
folder = Path(sys.argv[1])
answer = Catalog(folder).query(Query(provider="ec2", os=None, unknown=True, limit=0))
print(answer.found, (folder / "catalogue.db").stat().st_ino)
"""
"""A process that asks the catalogue in a folder: prints the count of EC2's rows, and which file it is."""


def asking(folder: Path) -> subprocess.Popen[str]:
    """Begin such a process."""
    return subprocess.Popen([sys.executable, "-c", ASK, folder], stdout=subprocess.PIPE, text=True)


def test_processes_at_once_make_it_once(tmp_path: Path) -> None:
    """Three processes that find no catalogue get the same one, whole, and nothing else is left behind."""
    folder = tmp_path / "state" / "prices"
    processes = [asking(folder) for _ in range(3)]
    answers = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1, "each saw the same file: it was made once"
    assert sorted(path.name for path in folder.iterdir()) == ["catalogue.db", "lock"]


def test_only_the_owner_can_look(small: Catalog, tmp_path: Path) -> None:
    """The state directory is its owner's alone, also when the catalogue is the first thing in it."""
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("state", "state/prices")] == [0o700, 0o700]


def test_a_maker_killed_in_the_middle(tmp_path: Path) -> None:
    """What a killed process left half written is never read, and the next one makes the catalogue."""
    folder = tmp_path / "prices"
    process = asking(folder)
    deadline = time.monotonic() + 60
    while not (folder / "catalogue.new").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert not (folder / "catalogue.db").exists()
    assert Catalog(folder).query(Query(provider="ec2", os=None, unknown=True)).found > 60000
    assert not (folder / "catalogue.new").exists()


def _truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _overwritten(file: Path) -> None:
    file.write_bytes(b"no database " * 1000)


def _damaged_behind_the_first_page(file: Path) -> None:
    with file.open("r+b") as open_file:
        for page in range(4096 * 4, file.stat().st_size, 4096):
            open_file.seek(page)
            open_file.write(b"\xff" * 64)


def _without_tables(file: Path) -> None:
    import sqlite3

    file.unlink()
    sqlite3.connect(file).close()
    file.touch()


@pytest.mark.parametrize(
    "damage", [_truncated, _emptied, _overwritten, _damaged_behind_the_first_page, _without_tables, Path.unlink]
)
def test_a_broken_database_is_made_anew(tmp_path: Path, whole: Path, damage: Callable[[Path], None]) -> None:
    """However the file was broken, the answer is the same as before."""
    folder = tmp_path / "prices"
    folder.mkdir()
    (folder / "catalogue.db").write_bytes((whole / "catalogue.db").read_bytes())
    query = Query(region="eu", min_cores=4, os=None)
    expected = Catalog(whole).query(query)
    assert Catalog(folder).query(query) == expected
    damage(folder / "catalogue.db")
    assert Catalog(folder).query(query) == expected
    assert Catalog(folder).price("ec2", "eu-west-1", "c5.xlarge")


def test_it_follows_its_source(small: Catalog, shipped: Path) -> None:
    """When libcloud's price list has changed, the catalogue is made anew; when it has not, it is left alone."""
    before = small.price("ec2", "eu-west-1", "m5.large")
    assert before
    assert (str(before.per_hour), before.date) == ("0.107", "2025-03-02")
    database = small._storage.folder / "catalogue.db"
    made = database.stat().st_ino
    assert small.price("ec2", "eu-west-1", "m5.large") == before
    assert database.stat().st_ino == made
    changed = json.dumps(PRICES | {"updated": 1750000000}).replace("0.107", "0.2")
    shipped.write_text(changed)
    after = small.price("ec2", "eu-west-1", "m5.large")
    assert after
    assert (str(after.per_hour), after.date) == ("0.2", "2025-06-15")
    assert after.digest != before.digest


@pytest.mark.parametrize("kind", ["file", "under a file"])
def test_a_folder_that_cannot_be(tmp_path: Path, kind: str) -> None:
    """Where the catalogue cannot be kept, it says so in words."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" if kind == "file" else tmp_path / "file" / "prices"
    with pytest.raises(Unusable, match="cannot be used"):
        Catalog.open(folder)


UPDATE_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from vendor_modules.catalog import Catalog, Unusable
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    Catalog(Path(sys.argv[1])).update(Path(sys.argv[2]))
except Unusable as error:
    print(error)
"""


def test_no_room_for_an_update(tmp_path: Path, whole: Path, table: Callable[..., Path]) -> None:
    """An update for which there is no room is refused in words, and nothing is lost or left behind."""
    folder = tmp_path / "prices"
    folder.mkdir()
    (folder / "catalogue.db").write_bytes((whole / "catalogue.db").read_bytes())
    command = [sys.executable, "-c", UPDATE_WITHOUT_ROOM, str(folder), str(table())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "cannot be used" in done.stdout, done
    assert (folder / "catalogue.db").read_bytes() == (whole / "catalogue.db").read_bytes()
    assert list((folder / "given").iterdir()) == []
    assert Catalog(folder).price("acme", "north", "s1") is None


def test_what_was_given_outlives_the_database(small: Catalog, table: Callable[..., Path], shipped: Path) -> None:
    """Prices that a user gave are there again when the database is made anew, from the same source and of that day."""
    small.update(table())
    given = small.price("acme", "north", "s1")
    assert given
    (small._storage.folder / "catalogue.db").unlink()
    assert small.price("acme", "north", "s1") == given
    shipped.write_text(json.dumps(PRICES | {"updated": 1750000000}))
    assert small.price("acme", "north", "s1") == given


def test_given_files_that_no_longer_count_are_forgotten(small: Catalog, table: Callable[..., Path]) -> None:
    """A file is kept as long as a price of it is in the catalogue."""
    small.update(table(name="first.csv"))
    small.update(table(name="second.csv"))
    (kept,) = (small._storage.folder / "given").iterdir()
    assert kept.name.endswith(".second.csv")
    price = small.price("acme", "north", "s1")
    assert price
    assert price.source == "second.csv"


def test_a_given_file_that_somebody_spoilt(small: Catalog, table: Callable[..., Path]) -> None:
    """A kept file that cannot be read any more is named, with where it is: nothing is silently lost."""
    small.update(table())
    (kept,) = (small._storage.folder / "given").iterdir()
    kept.write_text("nonsense")
    with pytest.raises(Unusable, match=r"given/000001\..*acme\.csv, which was given once, cannot be read"):
        small.price("acme", "north", "s1")


@pytest.mark.parametrize("name", ["žluťoučký kůň 🐎.csv", "a" * 250 + ".csv", "new\nline.csv", "x.2020-01-01.csv"])
def test_names_of_given_files(small: Catalog, table: Callable[..., Path], name: str) -> None:
    """A file may be called anything; its name, or the end of a long one, is the source of its prices."""
    small.update(table(name=name))
    price = small.price("acme", "north", "s1")
    assert price
    assert name.endswith(price.source)
    assert len(price.source) == min(len(name), 50)


def test_two_updates_at_once(tmp_path: Path, small: Catalog, table: Callable[..., Path]) -> None:
    """Updates by two processes at once follow one another: neither is lost."""
    folder = tmp_path / "elsewhere"
    header = "provider,region,size,price_per_hour,currency\n"
    files = [table(f"{header}{name},north,s1,0.05,EUR\n", f"{name}.csv") for name in ("acme", "umbrella")]
    update = "import sys; from pathlib import Path; from vendor_modules.catalog import Catalog; "
    update += "Catalog(Path(sys.argv[1])).update(Path(sys.argv[2]))"
    processes = [subprocess.Popen([sys.executable, "-c", update, folder, file]) for file in files]
    assert [process.wait(120) for process in processes] == [0, 0]
    # this process has other shipped prices than they had, which takes nothing from what they gave
    assert all(Catalog(folder).price(name, "north", "s1") for name in ("acme", "umbrella"))


def test_a_file_that_is_not_there(small: Catalog, tmp_path: Path) -> None:
    """A file that cannot be read is named with the reason."""
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(BadPriceFile, match=f"{path}: cannot be read"):
            small.update(path)
