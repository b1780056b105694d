"""XMPP servers for the agents: configurations of ejabberd and Prosody from templates of ours, and accounts at them.

``setting_up.py`` writes a directory from which a server runs, with its certificate (``agency/certificates.py``),
``accounts.py`` makes accounts at it, ``secrets.py`` keeps what the agency logs in with.
"""
