"""What becomes of agreements: a renegotiated one takes the place of the other, and one whose time is over ends."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from agency.agents import addresses
from agency.problems import refuse
from agency.relocation.workshop import Workshop
from agency.store.models import ConversationRow
from descriptors.base import Reference, utc_now
from descriptors.cfp import CallForProposals
from descriptors.deployment import Deployment
from descriptors.documents import digest
from descriptors.resources import ResourceClass
from descriptors.sla import Agreement, AgreementState, Offer


async def tend(workshop: Workshop, now: datetime) -> None:
    """Bring all agreements up to date: what a process that died left half done is done, and what expired is marked."""
    for agreement in await workshop.store.all(Agreement):
        if agreement.state != "observed" or workshop.busy.get(agreement.application):
            continue
        async with workshop.lock(agreement.application):
            if agreement.expires is not None and agreement.expires <= now:
                await _end(workshop, agreement.become("expired"), f"{agreement.id} with {agreement.provider} is over")
            else:
                await put_in_place(workshop, agreement)


async def put_in_place(workshop: Workshop, agreement: Agreement) -> None:
    """Where the agreement supersedes another, end that one, and have the deployment run under the new one. May be done
    again. Called with the application's lock held, and nothing under way."""
    if agreement.supersedes is None:
        return
    store, old_id = workshop.store, agreement.supersedes.id
    for deployment in await store.all(Deployment, application=agreement.application):
        if old_id in deployment.agreements and deployment.status != "destroyed":
            now = _under(deployment, old_id, agreement.id)
            await store.replace(now, id=now.id, expected_revision=deployment.revision)
    old = await store.find(Agreement, old_id)
    if old is not None and old.state == "observed":
        await _end(workshop, old.become("terminated"), f"{agreement.id} has taken the place of {old_id}")


def _under(deployment: Deployment, old: str, new: str) -> Deployment:
    """The deployment with everything under the new agreement that was under the old one."""
    return deployment.model_copy(
        update={
            "revision": deployment.revision + 1,
            "changed": utc_now(),
            "agreements": tuple(new if each == old else each for each in deployment.agreements),
            "resources": tuple(
                r.model_copy(update={"agreement": new}) if r.agreement == old else r for r in deployment.resources
            ),
        }
    )


async def _end(workshop: Workshop, agreement: Agreement, words: str) -> None:
    await workshop.store.put(agreement, id=agreement.id, application=agreement.application)
    await workshop.events.happened(agreement.application, f"agreement-{agreement.state}", words)


async def unsettled(workshop: Workshop, application: str) -> dict[str, AgreementState]:
    """The agreements that are not there, by vendor: ``pending`` where an offer was accepted and the vendor has not
    confirmed it yet, ``rejected`` where it would not. From the table of conversations, which is forgotten in time."""
    row = ConversationRow
    query = select(row).where(row.role == "initiator", row.state.in_(_UNSETTLED)).order_by(row.expires)
    async with workshop.store.transaction() as session:
        rows = [(found.id, found.peer, found.state) for found in await session.scalars(query)]
    calls = {id_: await workshop.store.find(CallForProposals, id_) for id_, _, _ in rows}
    about = {id_ for id_, call in calls.items() if call is not None and call.application == application}
    return {addresses.vendor_at(peer): _UNSETTLED[state] for id_, peer, state in rows if id_ in about}


_UNSETTLED: dict[str, AgreementState] = {"accepting": "pending", "withdrawing": "pending", "failed": "rejected"}
"""What the broker's conversations come to."""


# --- renegotiation ---


async def renegotiable(workshop: Workshop, deployment: Deployment, vendor: str | None) -> Agreement:
    """The running agreement to renegotiate: that with the vendor, or the only one. Refused where it is not clear which,
    or where there is none."""
    found = [await workshop.store.get(Agreement, each) for each in deployment.agreements]
    running = [each for each in found if each.state == "observed" and vendor in (None, each.provider)]
    name = deployment.application
    if not running:
        with_whom = f"with {vendor}" if vendor else "that runs"
        raise refuse("no-agreement", f"{name} has no agreement {with_whom}", f"see `agency status {name}`")
    if len(running) > 1:
        whom = ", ".join(sorted(each.provider for each in running))
        raise refuse("several-agreements", f"{name} has agreements with {whom}", "say with whom: --vendor NAME")
    return running[0]


def untied(agreement: Agreement) -> tuple[ResourceClass, ...]:
    """The resource classes that the agreement is about, as they were called for."""
    return tuple(each.model_copy(update={"provider": None, "agreement": None}) for each in agreement.resources)


def reference(agreement: Agreement) -> Reference:
    """The agreement, by its digest as it is now."""
    return Reference(id=agreement.id, digest=digest(agreement))


async def check_superseding(workshop: Workshop, offer: Offer, superseded: Reference) -> None:
    """Refuse an offer to replace an agreement that does not run like that any more, or that would need other machines
    than those that run."""
    old = await workshop.store.find(Agreement, superseded.id)
    if old is None or old.state != "observed" or reference(old) != superseded:
        raise refuse(
            "no-agreement",
            f"{superseded.id}, which the offer of {offer.vendor} would replace, has ended or changed",
            f"see `agency status {offer.application}`",
        )
    runs, offered = (sorted((a.resource, a.size) for a in each.allocations) for each in (old, offer))
    if runs != offered:
        raise refuse(
            "other-size",
            f"{offer.vendor} offers other sizes than those that run ({_words(runs)}): {_words(offered)}",
            f"`agency relocate {offer.application}` moves it to what is offered",
        )


def _words(sizes: list[tuple[str, str]]) -> str:
    return ", ".join(f"{resource} {size}" for resource, size in sizes)
