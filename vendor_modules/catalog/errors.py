"""What can go wrong with the catalogue. Each error has a ``code``, and a ``remedy`` that says what to do."""

from __future__ import annotations


class CatalogueError(Exception):
    """The catalogue cannot do what was asked; the message is for people."""

    code = "prices-failed"
    remedy = "look at what it says"


class BadPriceFile(CatalogueError):
    """A price file is not what it must be. The message says which file, where in it, and what was expected."""

    code = "bad-price-file"
    remedy = "correct the file and try again; the catalogue is as it was"

    def __init__(self, file: str, where: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (file, where, problem) if part))


class NotListed(CatalogueError):
    """The catalogue has no such provider or region."""

    code = "not-listed"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Unusable(CatalogueError):
    """The catalogue's folder cannot be written or read."""

    code = "prices-unusable"
    remedy = "see that there is room and that the folder may be written, or name another one with --state"
