"""A moto server as a process of the test's own: EC2, S3 and load balancers, with an account whose requests are checked.

Moto believes anybody unless it is told to check: then signatures and a user's policies count. The user is made with the
first three requests, which it does not check. Its machines run nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from vendor_modules.services.credentials import AccessKeyCredentials

REGION = "eu-west-1"
IMAGE = "ami-0c0ffee0"
"""The one image that there is."""
_MACHINE_IMAGE = {
    "ami_id": IMAGE,
    "name": "base",
    "description": "moto's machines run nothing",
    "owner_id": "099720109477",
    "public": True,
    "virtualization_type": "hvm",
    "architecture": "x86_64",
    "state": "available",
    "image_type": "machine",
    "image_location": "amazon/base",
    "hypervisor": "xen",
    "root_device_type": "ebs",
    "root_device_name": "/dev/sda1",
    "sriov": "simple",
}
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True)
class Moto:
    """A server, and the keys of its user."""

    url: str
    credentials: AccessKeyCredentials


@asynccontextmanager
async def start_moto(folder: Path) -> AsyncIterator[Moto]:
    """A moto server with one image and one user, who may do everything; state is kept in its memory."""
    images = folder / "images.json"
    images.write_text(json.dumps([_MACHINE_IMAGE]))
    checks = ("EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "ENABLE_AMI_VALIDATION", "ENABLE_KEYPAIR_VALIDATION")
    settings = {f"MOTO_{check}": "true" for check in checks}
    settings |= {"MOTO_AMIS_PATH": str(images), "INITIAL_NO_AUTH_ACTION_COUNT": "3"}
    log = folder / "moto.log"  # a pipe would have to be read, whichever event loop runs
    with log.open("wb") as opened:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"),
            env={**os.environ, **settings},
            stdout=DEVNULL,
            stderr=opened,
        )
    try:
        url = await _url(process, log)
        yield Moto(url, await _user(url))
    finally:
        process.kill()
        await process.wait()


async def _url(process: Process, log: Path) -> str:
    async with asyncio.timeout(60):
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert process.returncode is None, f"moto's server ended before it was up: {log.read_text()}"
            await asyncio.sleep(0.05)
    return found[0]


async def _user(url: str) -> AccessKeyCredentials:
    async with httpx.AsyncClient(trust_env=False) as client:

        async def ask(action: str, **params: str) -> str:
            scope = f"AWS4-HMAC-SHA256 Credential=nobody/20260101/{REGION}/iam/aws4_request"
            form = {"Action": action, "Version": "2010-05-08", "UserName": "owner", **params}
            answer = await client.post(url, data=form, headers={"authorization": scope})
            assert answer.status_code == 200, answer.text
            return answer.text

        await ask("CreateUser")
        await ask("PutUserPolicy", PolicyName="everything", PolicyDocument=json.dumps(_EVERYTHING))
        made = await ask("CreateAccessKey")
    key, secret = (re.search(f"<{name}>([^<]+)<", made) for name in ("AccessKeyId", "SecretAccessKey"))
    assert key
    assert secret
    return AccessKeyCredentials(access_key=key[1], secret_key=SecretStr(secret[1]))
