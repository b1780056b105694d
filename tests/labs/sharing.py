"""Which tests share a lab: they stay with one worker when several run at a time, so that each lab is started once.

A lab is any fixture of ours that outlives one test. Nothing is listed anywhere: what a test shares is seen from the
fixtures that it names, directly or through others or as a parameter, and whoever shares with a test shares with whom
that one shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest


def keep_together(items: Sequence[pytest.Item]) -> None:
    """Mark the tests that share something with ``xdist_group``, which ``pytest -n 4 --dist loadgroup`` follows."""
    joined: dict[str, str] = {}

    def group(lab: str) -> str:
        while (next_one := joined.setdefault(lab, lab)) != lab:
            lab = next_one
        return lab

    shared = {item: sorted(set(_outliving(item))) for item in items}
    for labs in shared.values():
        for lab in labs:
            joined[group(lab)] = group(labs[0])
    for item, labs in shared.items():
        if labs:
            item.add_marker(pytest.mark.xdist_group(group(labs[0])))


def _outliving(item: pytest.Item) -> Iterator[str]:
    """The fixtures of ours that the test needs and that it is not alone to have, told from their namesakes."""
    if not isinstance(item, pytest.Function):
        return
    known = dict(item._fixtureinfo.name2fixturedefs)
    for parameter in item.callspec.params.values() if hasattr(item, "callspec") else ():
        if isinstance(parameter, str) and (named := item.session._fixturemanager.getfixturedefs(parameter, item)):
            known[parameter] = named
    for name, definitions in known.items():
        for definition in definitions:
            if definition.baseid and definition.scope != "function":  # those of plugins are of nowhere
                yield f"{item.location[0] if definition.scope == 'module' else definition.baseid}:{name}"
