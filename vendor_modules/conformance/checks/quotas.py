"""The account's limits, and what is told to be used of them."""

from __future__ import annotations

from vendor_modules.capabilities import Quotas
from vendor_modules.conformance.bench import Bench, expect
from vendor_modules.conformance.checks.kinds import KINDS, each_kind
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.ways import Of
from vendor_modules.errors import Unsupported
from vendor_modules.resources import Quota

_COUNTED = tuple(kind for kind in KINDS if kind not in ("machine", "access-key", "load-balancer"))


async def _quota(bench: Bench, resource: str) -> Quota:
    for quota in await bench.the(Quotas).quotas():
        if quota.resource == resource and quota.used is not None:
            return quota
    raise Unsupported(f"does not tell how many {resource} are used")


@check(Quotas)
async def quotas_are_told_once(bench: Bench) -> None:
    """There are limits, each for another resource, and each with a limit or what is used."""
    quotas = await bench.the(Quotas).quotas()
    names = [quota.resource for quota in quotas]
    expect(names and all(name.strip() for name in names), f"the limits are for {names}")
    expect(len(set(names)) == len(names), f"a resource has several limits: {sorted(names)}")
    silent = [quota.resource for quota in quotas if quota.limit is None and quota.used is None]
    expect(not silent, f"neither limit nor use is told of {silent}")


@check(Quotas)
async def quota_counts_machines(bench: Bench) -> None:
    """While there is a machine, at least one is used, with its cores and memory if these are told."""
    async with bench.machine_lent():
        expect((await _quota(bench, "machines")).used, "no machine is used, and there is one")
        for quota in await bench.the(Quotas).quotas():
            if quota.resource in ("cores", "memory-mib") and quota.used is not None:
                expect(quota.used > 0, f"no {quota.resource} are used, and there is a machine")


@each_kind(Quotas, kinds=_COUNTED)
async def counts_in_the_quota(of: Of) -> None:
    """When a KIND is created one more is used, and one less when it is destroyed."""
    resource = f"{of.kind}{'es' if of.kind == 'address' else 's'}"
    if of.kind == "snapshot":
        await of.bench.specimen("volume")
    before = (await _quota(of.bench, resource)).used or 0
    made = await of.create()
    during = (await _quota(of.bench, resource)).used
    expect(during == before + 1, f"with one more, {during} are used instead of {before + 1}")
    await of.destroy(made.id)
    after = (await _quota(of.bench, resource)).used
    expect(after == before, f"when it was destroyed, {after} are used instead of {before}")
