"""The cloud's process: it answers, from its state directory and a configuration, until it is told to end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import structlog
import uvicorn
from pydantic import ValidationError

from vendor_modules.testbed.access import NoPassword
from vendor_modules.testbed.api import make_app
from vendor_modules.testbed.cloud import Cloud
from vendor_modules.testbed.config import CloudConfig, Ports
from vendor_modules.testbed.objects import Endpoint
from vendor_modules.testbed.ports import HOST, Claims, listen
from vendor_modules.testbed.runtimes import NoRuntime
from vendor_modules.testbed.runtimes.confine import die_with_parent
from vendor_modules.testbed.store import Store


class CannotStart(Exception):
    """The cloud cannot start here and so; the message says why."""


def serve(state: Path, config_text: str | None, *, follow_parent: bool) -> None:
    """Run the cloud until SIGTERM or SIGINT. Raises :class:`CannotStart`."""
    parent = os.getppid()
    if follow_parent:
        die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            return
    os.umask(0o077)
    state.mkdir(parents=True, exist_ok=True)
    with _only_one(state), (state / "log.jsonl").open("a") as log_file:
        _log_to(log_file)
        try:
            asyncio.run(_serve(state.resolve(), config_text))
        except (NoPassword, NoRuntime) as error:
            raise CannotStart(str(error)) from error


async def _serve(state: Path, config_text: str | None) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in signal.SIGTERM, signal.SIGINT:
        loop.add_signal_handler(number, stop.set)
    store = Store(state / "cloud.db")
    config = read_config(store, config_text)
    sockets, ports = _sockets(state, store, config)
    log = structlog.get_logger().bind(cloud=config.name)
    cloud = await Cloud.open(state, config, ports, store, log)
    apps = [make_app(cloud)]
    apps += [Endpoint(cloud.buckets, config, store, internal=internal).app for internal in (True, False)]
    servers = [_Server(_settings(app)) for app in apps]
    running = [asyncio.create_task(s.serve(sockets=[sock])) for s, sock in zip(servers, sockets, strict=True)]
    print(json.dumps({"name": config.name, "url": f"http://{HOST}:{ports.api}", "pid": os.getpid()}), flush=True)  # noqa: T201
    log.info("ready", url=f"http://{HOST}:{ports.api}", confinement=cloud.runtime.confinement)
    await stop.wait()
    log.info("ending")
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)
    await cloud.close()
    log.info("ended")


def read_config(store: Store, text: str | None) -> CloudConfig:
    """The configuration given, or the one of the last start; it is kept without its password.

    Raises :class:`CannotStart`.
    """
    text = text or store.setting("config")
    if text is None:
        raise CannotStart("the first start of a cloud needs a configuration: --config")
    try:
        config = CloudConfig.model_validate_json(text)
    except ValidationError as error:
        words = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the text'}: {e['msg']}" for e in error.errors())
        raise CannotStart(f"the configuration is not valid: {words}") from None
    store.set_setting("config", config.model_dump_json(exclude={"password"}))
    return config


def _sockets(state: Path, store: Store, config: CloudConfig) -> tuple[list[socket.socket], Ports]:
    """Listen where the cloud listened before, or where nobody does."""
    kept = store.setting("ports")
    if kept:
        ports = Ports.model_validate_json(kept)
        if config.port:
            ports = ports.model_copy(update={"api": config.port})
    else:
        claims = Claims(state)
        api = config.port or claims.choose()
        ports = Ports(api=api, internal_objects=claims.choose({api}), public_objects=claims.choose({api}))
    sockets = []
    for service, port in ports:
        try:
            sockets.append(listen(port))
        except OSError as error:
            raise CannotStart(f"port {port}, this cloud's own for {service}, cannot be listened at: {error}") from error
    store.set_setting("ports", ports.model_dump_json())
    return sockets, ports


class _Server(uvicorn.Server):
    """Three servers share the process, and none of them its signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _settings(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )


@contextmanager
def _only_one(state: Path) -> Iterator[None]:
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"a cloud runs already with the state directory {state}") from None
        yield


def _log_to(file: TextIO) -> None:
    """Everything that anybody in the process logs goes to the file, a JSON object a line."""
    shared: list[Any] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.add_log_level,
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    ]
    renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shared, renderer],
        logger_factory=structlog.WriteLoggerFactory(file),
    )
    handler = logging.StreamHandler(file)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
