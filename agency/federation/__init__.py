"""How agents find each other, at one site and across sites."""
