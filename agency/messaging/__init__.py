"""How agents talk: FIPA-ACL messages, the links that carry them, and the interaction protocols."""
