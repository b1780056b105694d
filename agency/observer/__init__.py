"""The observer: a plain XMPP client that follows an agency's events and asks its Mediator for offers.

Built on aioxmpp (the extra ``aioxmpp``, in a virtual environment of its own), it shows that the agency is what its
documentation says to anybody who speaks XMPP: it imports nothing of SPADE and slixmpp, and no agent.
"""
