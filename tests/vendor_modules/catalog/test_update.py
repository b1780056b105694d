"""Price files that users give: what good ones bring, and that bad ones change nothing and are told apart in words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vendor_modules.catalog.conftest import PRICES
from vendor_modules.catalog import BadPriceFile, Catalog, Query, table_format
from vendor_modules.catalog.rows import Row, from_nano

HEADER = "provider,region,size,price_per_hour,currency"


def test_a_table_replaces_its_providers(small: Catalog, table: Callable[..., Path]) -> None:
    """All prices of the providers in the file are replaced, those of others stay, and the source is the file."""
    content = f"""{HEADER},cores,memory_mib,os,area,jurisdiction,date,preemptible
ec2,eu-west-1,m5.large,0.1234567891,USD,2,8192,linux,,,2026-01-02,
ec2,eu-west-1,spot,0.01,USD,2,8192,linux,,,2026-01-02,true
acme,north,s1,0.05,EUR,,,,eu,CH,,false
acme,north,s2,0,EUR,,,,eu,CH,,false
acme,north,s3,,EUR,,,,eu,CH,,false
"""
    updated = small.update(table(content))
    assert (updated.providers, updated.unknown) == ({"ec2": 2, "acme": 3}, 2)
    rows = {(p.provider, p.size): p for p in small.query(Query(os=None, preemptible=True, unknown=True)).prices}
    assert set(rows) == {
        ("ec2", "m5.large"),
        ("ec2", "spot"),
        ("acme", "s1"),
        ("acme", "s2"),
        ("acme", "s3"),
        ("gogrid", "1GB"),
    }
    m5 = rows["ec2", "m5.large"]
    assert (str(m5.per_hour), m5.area, m5.jurisdiction, m5.date) == ("0.123456789", "eu", "EU", "2026-01-02")
    assert (m5.source, m5.digest) == ("acme.csv", updated.digest)
    assert rows["ec2", "spot"].preemptible
    s1 = rows["acme", "s1"]
    assert (s1.cores, s1.os, s1.area, s1.jurisdiction) == (None, None, "eu", "CH")
    assert s1.date == datetime.now(UTC).date().isoformat()
    assert rows["acme", "s2"].per_hour is rows["acme", "s3"].per_hour is None
    assert [p.size for p in small.query(Query(region="eu")).prices] == ["s1", "m5.large"]


def test_a_file_in_libclouds_format(small: Catalog, table: Callable[..., Path]) -> None:
    """A newer pricing.json replaces what it has, with its own date."""
    newer = {"compute": {"ec2_linux": {"m5.large": {"eu-west-1": 0.2}}}, "updated": 1750000000}
    small.update(table(json.dumps(newer), "newer.json"))
    price = small.price("ec2", "eu-west-1", "m5.large")
    assert price
    assert (str(price.per_hour), price.source, price.date) == ("0.2", "newer.json", "2025-06-15")
    assert small.price("ec2", "us-east-1", "m5.large") is None, "all of EC2's were replaced"
    assert small.price("gogrid", "", "1GB")


def test_a_spreadsheets_table(small: Catalog, table: Callable[..., Path]) -> None:
    """A byte order mark, CRLF and quotes are understood."""
    small.update(table(b"\xef\xbb\xbf" + f'{HEADER}\r\n"acme","north","s ""1""",0.05,EUR\r\n'.encode()))
    assert small.price("acme", "north", 's "1"')


ROW = "acme,north,s1,0.05,EUR"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "line 1, column provider: is missing"),
        ("nonsense", "line 1, column provider: is missing; the columns provider, region, size"),
        (HEADER, "there are no prices in it"),
        (f"{HEADER},colour\n{ROW},red", "line 1, column colour: is no column of ours"),
        (f"{HEADER},size\n{ROW},s1", "line 1: a column is there twice"),
        (f"{HEADER}\n{ROW}\n{ROW},7", "line 3: has not as many fields as the header"),
        (f"{HEADER}\n{ROW}\nacme,north", "line 3: has not as many fields as the header"),
        (f"{HEADER}\n{ROW}\n\n{ROW}", "line 4: says again what line 2 says"),
        (f"{HEADER}\n,north,s1,1,EUR", "line 2, column provider: is empty"),
        (f"{HEADER}\nacme,north,,1,EUR", "line 2, column size: is empty"),
        (
            f"{HEADER}\nacme,north,s1,cheap,EUR",
            "line 2, column price_per_hour: a number from 0 to 10⁹ is expected, not 'cheap'",
        ),
        (f"{HEADER}\nacme,north,s1,-1,EUR", "line 2, column price_per_hour"),
        (f"{HEADER}\nacme,north,s1,NaN,EUR", "line 2, column price_per_hour"),
        (f'{HEADER}\nacme,north,s1,"0,05",EUR', "line 2, column price_per_hour: a number .* not '0,05'"),
        (f"{HEADER}\nacme,north,s1,1,euro", "line 2, column currency: three capital letters such as EUR"),
        (f"{HEADER},cores\n{ROW},2.5", "line 2, column cores: a whole number from 1 is expected, not '2.5'"),
        (f"{HEADER},memory_mib\n{ROW},0", "line 2, column memory_mib: a whole number from 1"),
        (f"{HEADER},preemptible\n{ROW},maybe", "line 2, column preemptible: true or false is expected"),
        (f"{HEADER},date\n{ROW},yesterday", "line 2, column date: YYYY-MM-DD is expected, not 'yesterday'"),
        (f'{HEADER}\n"acme,north', "is not CSV: unexpected end of data"),
        (f"{HEADER},area\n{ROW},eu\nacme,north,s2,1,EUR,us", "'north' of 'acme' has more than one area"),
        (f"{HEADER}\n{ROW}\n".encode() + b"acme,\xff,s2,1,EUR", "line 3: is not UTF-8 text"),
        ("{", "line 1, column 2: is not JSON"),
        ("[1]", 'an object with the key "compute" is expected'),
        ("{}", 'an object with the key "compute" is expected'),
        ('{"compute": {}}', "compute: there are no prices in it"),
        ('{"compute": {"ec2_us_east": {"m1.small": 1}}}', "compute: there are no prices in it"),
        ('{"compute": {"acme": 7}}', "compute.acme: an object of sizes is expected"),
        (
            '{"compute": {"acme": {"s1": "much"}}}',
            r'compute.acme\["s1"\]: a number from 0 to 10⁹ is expected, not \'much\'',
        ),
        ('{"compute": {"acme": {"s1": {"north": -1}}}}', r'compute.acme\["s1"\]\["north"\]: a number'),
        ('{"compute": {"acme": {"s1": {"north": true}}}}', r'compute.acme\["s1"\]\["north"\]: a number'),
        ('{"compute": {"acme": {"s1": NaN}}}', "a number from 0 to 10⁹ is expected"),
        ('{"compute": {"acme": {"s1": 1e999999999999}}}', "a number from 0 to 10⁹ is expected"),
        ('{"compute": {"acme": {"s1": ' + "9" * 5000 + "}}}", "a number from 0 to 10⁹ is expected"),
        ('{"compute": {"acme": {"s1": 1}}, "updated": "today"}', "updated: seconds since 1970 are expected"),
        ('{"compute": {"acme": {"s1": 1}}, "updated": 1e99}', "updated: seconds since 1970 are expected"),
        ('{"compute": {"gce_instances": {"n1": {"cpu": 7}}}}', "compute.gce_instances.n1.cpu.on_demand: an object"),
        (
            '{"compute": {"gce_instances": {"n1": {"cpu": {"on_demand": {"us-east4": 7}}}}}}',
            'compute.gce_instances.n1.cpu.on_demand: objects with the key "price"',
        ),
        (
            '{"compute": {"gce_instances": {"n1": {"cpu": {"on_demand": {"us-east4": {}}}}}}}',
            r'n1.cpu.on_demand\["us-east4"\].price: a number',
        ),
        ("[" * 100000, "is nested too deeply|is not JSON"),
        (b'{"compute": "\xff"}', "is not UTF-8 text"),
    ],
)
def test_a_bad_file_changes_nothing(
    small: Catalog, table: Callable[..., Path], content: str | bytes, words: str
) -> None:
    """What is wrong is said with the file, the place in it and what was expected; the catalogue is as it was."""
    database = small._storage.folder / "catalogue.db"
    before = database.read_bytes()
    with pytest.raises(BadPriceFile, match=words) as caught:
        small.update(table(content, "mine.csv"))
    assert str(caught.value).startswith("mine.csv")
    assert database.read_bytes() == before
    assert not (small._storage.folder / "given").exists()
    assert small.price("ec2", "eu-west-1", "m5.large")


def test_no_price_of_the_small_list_is_lost(small: Catalog) -> None:
    """The list that these tests start from is in the catalogue as it is."""
    found = {(p.provider, p.size, p.region, p.os): p.per_hour for p in small.query(Query(os=None, unknown=True)).prices}
    compute = PRICES["compute"]
    assert found == {
        ("ec2", "m5.large", "eu-west-1", "linux"): Decimal("0.107"),
        ("ec2", "m5.large", "us-east-1", "linux"): Decimal("0.096"),
        ("ec2", "c5.large", "eu-west-1", "linux"): None,
        ("ec2", "m5.large", "eu-west-1", "windows"): Decimal("0.199"),
        ("gogrid", "1GB", None, None): Decimal(str(compute["gogrid"]["1GB"])),
    }


words = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=12)
rows = st.builds(
    Row,
    provider=words,
    region=words | st.just(""),
    size=words,
    os=words | st.just(""),
    preemptible=st.booleans(),
    cores=st.none() | st.integers(1, 999),
    memory_mib=st.none() | st.integers(1, 10**8),
    nano=st.none() | st.integers(1, 10**17),
    currency=st.sampled_from(["EUR", "USD"]),
    date=st.dates().map(str),
    area=st.just("eu"),
    jurisdiction=st.just("CH"),
    basis=st.just(""),
)


@given(st.lists(rows, min_size=1, unique_by=lambda row: row.identity))
def test_what_a_table_says_is_what_is_read(given_rows: list[Row]) -> None:
    """Every row of a good table is read as it is, whatever its names are."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*table_format.NEEDED, *table_format.OPTIONAL])
    for row in given_rows:
        price = from_nano(row.nano)
        writer.writerow([
            row.provider, row.region, row.size, "" if price is None else f"{price:f}", row.currency, row.os,
            row.cores or "", row.memory_mib or "", str(row.preemptible).lower(), row.area, row.jurisdiction, row.date,
        ])  # fmt: skip
    assert table_format.Reader("t.csv", text.getvalue().encode()).rows("2026-11-22") == given_rows
