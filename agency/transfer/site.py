"""The site's key, for a proxy to sign with: read by a process of its own, as that takes 50 MB."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from agency.problems import problem_of, refused
from agency.trust.keys import SiteKey


def site_key(state: Path) -> SiteKey:
    """The key of the site whose state directory it is, made if it has none yet. It comes over a pipe."""
    reader = [sys.executable, "-m", __name__, str(state)]
    answer = json.loads(subprocess.run(reader, stdout=subprocess.PIPE, check=True).stdout)
    if "problem" in answer:
        raise refused(answer["problem"])
    return SiteKey.from_secret(answer["name"], answer["key"])


async def _read(state: Path) -> dict[str, str]:
    from agency.settings import Settings
    from agency.state import opened
    from agency.trust.site import Site

    settings = Settings(state=state)
    async with opened(settings) as (store, credentials):
        key = (await Site.open(store, credentials, settings.domain)).key
    return {"name": key.name, "key": key.secret()}


def main() -> None:
    """Print the key, or the problem, for whoever holds the other end of the pipe."""
    from agency import logs

    logs.configure(None)
    try:
        answer: dict[str, object] = dict(asyncio.run(_read(Path(sys.argv[1]))))
    except Exception as error:  # noqa: BLE001 - whatever it is, a user is shown words
        answer = {"problem": problem_of(error).model_dump(mode="json")}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
