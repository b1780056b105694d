"""How people say what matters to them: ``price=0.5``."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import get_args

from pydantic import ValidationError

from agency.problems import AgencyError, refuse
from descriptors.application import Application, Attribute, Weight


def parse(texts: Iterable[str]) -> tuple[Weight, ...]:
    """The weights; an :class:`~agency.problems.AgencyError` says what is wrong with the first that is none."""
    weights: dict[str, Weight] = {}
    for text in texts:
        attribute, _, value = text.partition("=")
        if attribute in weights:
            raise _refused(text, f"{attribute} is weighed twice")
        if attribute not in get_args(Attribute):
            raise _refused(text, f"there is no attribute {attribute!r}")
        try:
            weights[attribute] = Weight.model_validate({"attribute": attribute, "value": Decimal(value.strip())})
        except (ArithmeticError, ValidationError):
            raise _refused(text, f"{value!r} is no number from 0 on with at most 6 decimal places") from None
    return tuple(weights.values())


def weighed(application: Application, weights: tuple[Weight, ...]) -> Application:
    """The descriptor with these weights in place of its own for the same attributes."""
    if not weights:
        return application
    named = {weight.attribute for weight in weights}
    kept = (weight for weight in application.requirements.weights if weight.attribute not in named)
    requirements = application.requirements.model_copy(update={"weights": (*kept, *weights)})
    return application.model_copy(update={"requirements": requirements})


def _refused(text: str, why: str) -> AgencyError:
    known = ", ".join(get_args(Attribute))
    return refuse("bad-weight", f"the weight {text!r}: {why}", f"say it as in price=0.5; attributes: {known}")
