"""Names on the wire that whoever talks with us must know, too. Imports nothing: the observer is no SPADE agent."""

from __future__ import annotations

ACL = "urn:cloud-agency:acl:1"
"""Namespace of the element with FIPA's parameters."""
ONTOLOGY = "cloud-agency-1"
PROTOCOL_REQUEST = "fipa-request"
EVENTS = "urn:cloud-agency:events:1"
"""Namespace of published events; what the nodes' names begin with."""
TOPICS = ("negotiation", "agreements", "relocations", "measurements")
"""There is a node for each."""


def node(topic: str) -> str:
    """The name of the node (XEP-0060) that a topic's events are published on."""
    return f"{EVENTS}:{topic}"


def pubsub_of(site: str) -> str:
    """The address of a site's PubSub service, as `agency server init` names it."""
    return f"pubsub.{site}"


def agents_of(site: str) -> str:
    """The domain of a site's agents, as `agency server init` names it."""
    return f"agency.{site}"
