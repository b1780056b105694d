"""Lists that are longer than a provider's page, and many things at once."""

from __future__ import annotations

import asyncio

from vendor_modules.capabilities import KeyPairs, SecurityGroups
from vendor_modules.conformance.bench import Bench, expect
from vendor_modules.conformance.checks.kinds import each_kind
from vendor_modules.conformance.lender import all_at_once
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.ways import Of
from vendor_modules.errors import QuotaExceeded, Unsupported

AT_ONCE = 8


@each_kind(kinds=("key-pair", "security-group", "bucket"))
async def list_has_all_pages(of: Of) -> None:
    """A list with more of a KIND than the provider has on a page is complete, and has each once."""
    gate, words = asyncio.Semaphore(AT_ONCE), [f"many-{number}" for number in range(of.bench.subject.page_size + 1)]

    async def make(word: str) -> str:
        async with gate:
            return str((await of.create(word)).id)

    try:
        made = await all_at_once(make(word) for word in words)
    except QuotaExceeded as error:
        raise Unsupported(f"the account may hold too few to see a second page: {error.detail}") from error
    await of.listed(made[-1])
    listed = [resource.id for resource in await of.list()]
    missing = set(made) - set(listed)
    expect(not missing, f"{len(missing)} of {len(made)} are not listed")
    expect(len(set(listed)) == len(listed), "some are listed twice")
    await all_at_once(of.destroy(one) for one in made)


@check(KeyPairs, SecurityGroups)
async def kinds_may_share_a_key(bench: Bench) -> None:
    """One key gives one resource of each kind: a key pair does not stand in the way of a security group."""
    pair, group = await Of("key-pair", bench).create("shared"), await Of("security-group", bench).create("shared")
    expect(pair.key == group.key == bench.key("shared"), f"the keys are {pair.key!r} and {group.key!r}")
    await Of("key-pair", bench).destroy(pair.id)
    seen = await Of("security-group", bench).describe(group.id)
    expect(seen.id == group.id, "the group went with the key pair")
