"""Whom to ask: of the vendors that a directory knows, those that could serve a call at all."""

from __future__ import annotations

from collections.abc import Collection

from descriptors.cfp import CallForProposals
from descriptors.directory import Registration, Search, Service
from descriptors.resources import Reason, ResourceClass, ResourceType


def search_for(call: CallForProposals) -> Search:
    """What to ask a directory for a call. Prices are not looked at: they are negotiable."""
    services: list[Service] = sorted({service for resource in call.resources if (service := _service(resource))})
    return Search(
        currency=call.requirements.currency,
        services=tuple(services),
        regions=call.requirements.regions,
        jurisdictions=call.requirements.jurisdictions,
    )


def _service(resource: ResourceClass) -> Service | None:
    """What serving the resource takes; None where the vendor itself must say whether it can."""
    if resource.type is ResourceType.COMPUTE:
        return "compute"
    if resource.type is ResourceType.STORAGE and not resource.fallback:
        return resource.kind
    return None


def unable(registration: Registration, search: Search) -> Reason | None:
    """Why the vendor could not serve what is searched for; None if it could, or if that is not known."""
    missing = [service for service in search.services if service not in registration.services]
    if registration.services and missing:
        return _reason("no-such-service", " and ".join(missing), registration.services, "serves")
    if registration.currency and search.currency and registration.currency != search.currency:
        return _reason("other-currency", search.currency, [registration.currency], "is priced in")
    for code, wanted, offered, verb in (
        ("other-region", search.regions, registration.regions, "is in"),
        ("other-jurisdiction", search.jurisdictions, registration.jurisdictions, "is under the law of"),
    ):
        if wanted and offered and not set(wanted) & set(offered):
            return _reason(code, " or ".join(wanted), offered, verb)
    return None


def _reason(code: str, required: str, offered: Collection[str], verb: str) -> Reason:
    found = ", ".join(sorted(offered))
    message = f"was not asked: it {verb} {found}, where {required} is required"
    return Reason(code=code, required=required[:255], offered=found[:255], message=message[:1024])
