"""Logging: structured events to a file, and to a person who asks; secrets never get that far.

Our code logs with ``structlog.get_logger(…)``; what libraries log through :mod:`logging`, loguru (SPADE) or
:mod:`warnings` takes the same way. Nothing is written to stdout, which belongs to commands' answers.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor

if TYPE_CHECKING:
    from pydantic import SecretStr

FILE = "agency.log"
FILE_BYTES = 10_000_000
FILES = 5
"""How many older files are kept beside the current one."""
MASK = "**********"

_OURS = ("agency", "broker", "descriptors", "vendor_modules")
_WILFUL = ("dbos", "uvicorn", "uvicorn.access", "uvicorn.error")
"""Loggers of libraries that would install handlers of their own (uvicorn too must be told ``log_config=None``)."""


def configure(directory: Path | None, *, human: bool = False, level: str = "INFO") -> None:
    """Log to :data:`FILE` in that directory as lines of JSON, readable by its owner only; with ``human`` also to stderr
    in words. ``level`` is for our own code; libraries are heard from WARNING on: at DEBUG, XMPP's print passwords.
    Without a directory nothing is written to a file: what is logged is lost, or only ``human``."""
    handlers: list[logging.Handler] = []
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = _PrivateFile(directory / FILE, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")
        file.setFormatter(_formatter(structlog.processors.JSONRenderer(ensure_ascii=False)))
        handlers.append(file)
    if human:
        stderr = logging.StreamHandler(sys.stderr)
        stderr.setFormatter(_formatter(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())))
        handlers.append(stderr)
    # with no handler at all, logging would print to stderr, tracebacks and all
    logging.basicConfig(handlers=handlers or [logging.NullHandler()], level=logging.WARNING, force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    _adopt_libraries()


def _adopt_libraries() -> None:
    for name in _WILFUL:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()], True
        logger.setLevel(logging.NOTSET)  # the root logger's level is for all
    logging.captureWarnings(True)


def adopt_loguru() -> None:
    """What is logged by loguru, which else prints it, takes the way of :mod:`logging`: for whoever imports SPADE."""
    import loguru

    loguru.logger.remove()
    loguru.logger.add(_FromLoguru(), level="WARNING", format="{message}", backtrace=False, diagnose=False)


class _FromLoguru(logging.Handler):
    """Passes loguru's records to the handlers of the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)


class _PrivateFile(RotatingFileHandler):
    """A rotating file for its owner's eyes only, from its first moment on."""

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.fchmod(handle, 0o600)
        return os.fdopen(handle, "a", encoding=self.encoding)


# --- removing secrets ---

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|private_?key|api_?key|master_?key|authorization|credential|cookie", re.I
)
_IN_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), MASK),
    (re.compile(r"(?<=://)[^\s/?#\"'<>]*@|(?<=://)[^\s/:@]*:[^\s\"'<>]*@"), f"{MASK}@"),
    (re.compile(r"\b((?i:basic|bearer))\s+(?=\S*[A-Z0-9=.~+])[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (
        re.compile(
            r"""((?:passw(?:or)?d|passphrase|secret|token|private_?key|api_?key|authorization|cookie|signature)\w*["']?\s*[=:]\s*)"""
            r"""("[^"]*"|'[^']*'|[^\s,;&"')}\]]+)""",
            re.I,
        ),
        rf"\1{MASK}",
    ),
)
"""How secrets look in text: PEM keys, URLs with a user, authorization headers, and ``password=…``."""

_LEAST_HIDDEN = 4
_hidden: set[str] = set()
_hidden_pattern: re.Pattern[str] | None = None
_hiding = threading.Lock()


def hide(secret: str | SecretStr) -> None:
    """From now on this value is masked wherever it appears, also quoted for a URL, in base64 or as JSON. Values shorter
    than 4 characters are not: they would be found in every second word."""
    from pydantic import SecretStr

    global _hidden_pattern
    value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if len(value) < _LEAST_HIDDEN or value in _hidden:
        return
    encoded = base64.b64encode(value.encode()).decode()
    forms = {value, quote(value, safe=""), quote_plus(value), encoded, json.dumps(value)[1:-1], repr(value)[1:-1]}
    with _hiding:
        _hidden.update(forms)
        longest_first = sorted(_hidden, key=len, reverse=True)
        _hidden_pattern = re.compile("|".join(re.escape(form) for form in longest_first))


def forget_hidden() -> None:
    """Mask none of those values any more: for tests."""
    global _hidden_pattern
    with _hiding:
        _hidden.clear()
        _hidden_pattern = None


def masked(value: Any, key: str = "") -> Any:
    """The value without secrets, as JSON can hold it; ``key`` is the name that it goes by."""
    from pydantic import BaseModel, SecretBytes, SecretStr

    if value is None or isinstance(value, bool | int | float):
        return MASK if value is not None and _is_secret(key) and not isinstance(value, bool) else value
    if isinstance(value, SecretStr | SecretBytes) or _is_secret(key):
        return MASK
    if isinstance(value, BaseModel):
        return masked(value.model_dump(), key)
    if isinstance(value, Mapping):
        return {_masked_text(str(name)): masked(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item, key) for item in value]
    return _masked_text(value if isinstance(value, str) else _words(value))


def _is_secret(key: str) -> bool:
    return bool(_SECRET_KEY.search(key.replace("-", "_")))


def _masked_text(text: str) -> str:
    if _hidden_pattern is not None:
        text = _hidden_pattern.sub(MASK, text)
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _words(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a log line must not fail for a value that cannot print itself
        return f"<{type(value).__name__}>"


def _mask_event(_: Any, __: str, event: EventDict) -> EventDict:
    return {name: masked(value, name) for name, value in event.items()}


# --- the way of an event ---

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.filter_by_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _formatter(renderer: Processor) -> logging.Formatter:
    """Exceptions are put into words first and masked with all the rest; then the line is made."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[step for step in _SHARED if step is not structlog.stdlib.filter_by_level],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _mask_event,
            renderer,
        ],
    )
