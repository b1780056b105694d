"""How agents talk: FIPA-ACL messages, the links that carry them, and the interaction protocols."""

from agency import logs

logs.adopt_loguru()  # SPADE's way to log; the modules in here are the only ones that import it
