"""`agency vendor add`, `remove` and `check`, on real clouds."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from agency import vendors
from agency.problems import AgencyError
from agency.settings import Settings
from agency.state import alone, opened
from agency.store.models import CredentialRow
from agency.store.persistence import StorePersistence
from agency.store.store import Store, VendorConfig
from agency.trust.keys import SiteKey
from agency.trust.site import Site, add_site
from tests.labs.testbed import PASSWORD, USERNAME, module_for, start_cloud
from vendor_modules.errors import Unauthorized
from vendor_modules.resources import VolumeSpec
from vendor_modules.services.credentials import KeyPairCredentials, PasswordCredentials
from vendor_modules.services.persistence import ResourceRecord
from vendor_modules.vendor_file import VendorFile

AGENCY = Path(sys.executable).parent / "agency"

pytestmark = pytest.mark.integration


async def agency(*arguments: str, typed: str = "") -> tuple[int, str, str]:
    """Run the command; returns its status, output and errors."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(AGENCY, *arguments, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(typed.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def vendor_file(directory: Path, url: str, password: str = PASSWORD, **more: object) -> Path:
    """A vendor's description."""
    credentials = {"kind": "password", "username": USERNAME, "password": password}
    file = directory / "vendor.json"
    file.write_text(json.dumps({"module": "testbed", "settings": {"url": url}, "credentials": credentials, **more}))
    return file


async def test_checking_the_testbed_needs_nothing() -> None:
    """`agency vendor check testbed` brings its own cloud, fails no check, and reports each as JSON."""
    status, out, err = await agency("vendor", "check", "testbed", "--json")
    report = json.loads(out)
    assert "checks" in report, out
    assert [check for check in report["checks"] if check["outcome"] == "failed"] == [], err
    assert status == 0
    assert len(report["checks"]) >= 50
    assert report["vendor"] == "testbed"


async def test_vendor_is_added_once_it_answers(tmp_path: Path) -> None:
    """A vendor that answers is kept with its password encrypted, and can be removed again."""
    state = tmp_path / "state"
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        file = vendor_file(tmp_path, cloud.url)
        status, out, err = await agency("vendor", "add", "acme", "--config", str(file), "--state", str(state), "--json")
        assert (status, json.loads(out)["name"]) == (0, "acme"), err
    assert PASSWORD.encode() not in b"".join(p.read_bytes() for p in state.rglob("*") if p.is_file())
    assert (await agency("vendor", "remove", "acme", "--state", str(state)))[0] == 0
    status, _, err = await agency("vendor", "remove", "acme", "--state", str(state))
    assert status == 1
    assert "no vendor 'acme'" in err


async def test_vendor_is_asked_for_on_the_terminal(tmp_path: Path) -> None:
    """Without a file, settings and credentials are asked for by the module's own fields."""
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        typed = f"{cloud.url}\npassword\n{USERNAME}\n{PASSWORD}\n"
        arguments = ("vendor", "add", "acme", "--module", "testbed", "--state", str(tmp_path / "state"))
        status, out, err = await agency(*arguments, typed=typed)
    assert status == 0, err
    assert "acme answers" in out
    assert PASSWORD not in out + err


async def test_vendor_that_refuses_the_password_is_not_added(tmp_path: Path) -> None:
    """Wrong credentials are told at once, without the password, and nothing is kept."""
    state = tmp_path / "state"
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        file = vendor_file(tmp_path, cloud.url, password="not the password")
        status, out, err = await agency("vendor", "add", "acme", "--config", str(file), "--state", str(state))
    assert status == 1
    assert "vendor-unauthorized" in err
    assert "not the password" not in out + err
    status, _, err = await agency("vendor", "check", "acme", "--state", str(state))
    assert (status, "no vendor 'acme'" in err) == (1, True)


async def test_a_vendor_that_failed_to_answer_changes_nothing(tmp_path: Path) -> None:
    """Nothing of a vendor that does not let us in is kept, at no moment; one that was there before stays as it was."""
    state, wrong = tmp_path / "state", "not the password"
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        bad = VendorFile.read(vendor_file(tmp_path, cloud.url, password=wrong))
        with pytest.raises(Unauthorized):
            await vendors.add(state, "acme", bad)
        assert not state.exists()
        await vendors.add(state, "acme", VendorFile.read(vendor_file(tmp_path, cloud.url)))
        kept = await rows(state)
        with pytest.raises(Unauthorized):
            await vendors.add(state, "acme", bad)
        assert await rows(state) == kept, "not even encrypted anew: at no moment was another kept"


async def test_another_site_s_agent_may_speak_for_a_vendor(tmp_path: Path) -> None:
    """An account is kept with the address of the agent at a trusted site that speaks for the vendor; whatever else is
    given as one is refused in words, with nothing kept; nor is the agent exchanged for another while something runs."""
    state, agent = tmp_path / "state", "vendor-acme@agency.b.test"
    async with opened(Settings(state=state)) as (store, credentials):
        await Site.open(store, credentials, "agency.a.test")
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        file = VendorFile.read(vendor_file(tmp_path, cloud.url))

        async def refused(agent: str | None, given: VendorFile = file) -> str:
            with pytest.raises(AgencyError) as error:
                await vendors.add(state, "acme", given, agent)
            return error.value.problem.code

        assert await refused("acme") == "bad-value"
        assert await refused(agent) == "unknown-site"
        assert await refused("vendor-acme@agency.a.test") == "own-site"
        async with opened(Settings(state=state)) as (store, _):
            await add_site(store, "agency.b.test", SiteKey.generate("agency.b.test").public)
            assert await store.vendors() == []
        haggles = VendorFile.read(vendor_file(tmp_path, cloud.url, negotiation={"strategy": "conceder", "floor": 80}))
        assert await refused(agent, haggles) == "bad-value"
        await vendors.add(state, "acme", file, agent)
    async with opened(Settings(state=state)) as (store, _):
        assert [(vendor.name, vendor.agent) for vendor in await store.vendors()] == [("acme", agent)]
        await StorePersistence(store).save_resource(ResourceRecord("acme", "machine", "key", "created", "id"))
    assert await refused(None) == await refused("vendor-other@agency.b.test") == "vendor-in-use"


async def rows(state: Path) -> list[tuple[str, bytes]]:
    """Whose credentials are in the store, and how they are kept."""
    async with Store.open(f"sqlite+aiosqlite:///{state}/agency.db") as store, store.transaction() as session:
        return [(row.vendor, row.ciphertext) for row in await session.scalars(select(CredentialRow))]


async def test_what_was_intended_is_looked_for(tmp_path: Path) -> None:
    """A creation whose answer never came keeps a vendor: until it can be asked, then if there is something. What was
    never made does not."""
    state = tmp_path / "state"
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        await vendors.add(state, "acme", VendorFile.read(vendor_file(tmp_path, cloud.url)))
        async with (
            opened(Settings(state=state)) as (store, _),
            module_for(cloud.url, vendor="acme") as module,
        ):
            persistence = StorePersistence(store)
            for key in ("made", "never-made"):
                await persistence.save_resource(ResourceRecord("acme", "volume", key, "intended"))
            volume = await module.create_volume(VolumeSpec(name="v", size_mib=1), key="made")
            with alone(state), pytest.raises(AgencyError, match="an agency runs"):
                await vendors.remove(state, "acme")
            with pytest.raises(AgencyError, match=f"acme still holds volume {volume.id}"):
                await vendors.remove(state, "acme")
            records = {(record.key, record.status, record.id) for record in await persistence.resources("acme")}
            assert records == {("made", "created", volume.id), ("never-made", "destroyed", None)}
            await module.destroy_volume(volume.id)
            await persistence.mark_destroyed("acme", "volume", volume.id)
            await persistence.save_resource(ResourceRecord("acme", "machine", "unknown", "intended"))
    with pytest.raises(AgencyError, match="what became of machine unknown is not known, and acme does not say"):
        await vendors.remove(state, "acme")
    async with start_cloud(tmp_path / "cloud", name="acme") as cloud:
        await vendors.add(state, "acme", VendorFile.read(vendor_file(tmp_path, cloud.url)))
        await vendors.remove(state, "acme")
    assert await rows(state) == []


async def test_a_removed_vendor_leaves_no_key(tmp_path: Path) -> None:
    """With a vendor the keys to its machines are forgotten, and no other vendor's."""
    state = tmp_path / "state"
    key = KeyPairCredentials(public_key="ssh-ed25519 x", private_key=SecretStr("hush-hush"))
    async with opened(Settings(state=state)) as (store, credentials):
        for name in ("acme", "acme2"):
            await store.save_vendor(VendorConfig(name, "testbed", {"url": "http://127.0.0.1:1"}))
            await credentials.put(name, PasswordCredentials(username="ada", password=SecretStr("hush-hush")))
            await credentials.put(f"{name}.machines", key, agreement="agreement-1")
    await vendors.remove(state, "acme")
    assert {vendor for vendor, _ in await rows(state)} == {"acme2", "acme2.machines"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"module": "nosuch"}, "nosuch"),
        ({"settings": {"link": "x"}}, "link"),
        ({"credentials": {"kind": "access-key", "access_key": "a", "secret_key": "hush"}}, "access-key"),
        ({"surplus": 1}, "surplus"),
    ],
    ids=["module", "settings", "credentials", "surplus"],
)
async def test_bad_vendor_file_is_told(tmp_path: Path, change: dict[str, object], words: str) -> None:
    """A file with a wrong part is refused with words that name the part, and never shows a secret."""
    content = {"module": "testbed", "settings": {"url": "http://127.0.0.1:1"}, "credentials": {
        "kind": "password", "username": USERNAME, "password": PASSWORD}} | change  # fmt: skip
    file = tmp_path / "vendor.json"
    file.write_text(json.dumps(content))
    arguments = ("vendor", "add", "acme", "--config", str(file), "--state", str(tmp_path / "state"))
    status, out, err = await agency(*arguments)
    assert status == 1
    assert words in err
    assert PASSWORD not in out + err
    assert "hush" not in out + err
