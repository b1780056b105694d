"""Start one confined process and see that nothing of it is left behind. Run as ``python -I -S confine.py SPEC``, by
path: only the standard library is at hand, and as little of it as possible, for every machine start waits for this.

Three processes come of it. The *launcher* is the cloud's child. The *init*, its child, is the first process of a PID
namespace of its own: when it ends, for whatever reason, the kernel ends everything in the namespace, however deeply
forked. The *service*, its child, gives up its rights and becomes the command. Each dies with its parent
(``PR_SET_PDEATHSIG``), so a cloud that is killed takes its machines along. Where PID namespaces are refused, init is an
ordinary process and adopts orphans; then a service's own children may outlive a killed cloud.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from typing import Any, NoReturn

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_PDEATHSIG, _CAPBSET_DROP, _CHILD_SUBREAPER, _NO_NEW_PRIVS = 1, 24, 36, 38
_CLONE_NEWUSER, _CLONE_NEWPID = 0x10000000, 0x20000000

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND_TCP = 1 << 0
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1 << 0, 1 << 1

EXIT_NOT_STARTED = 127

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number: int, *arguments: Any) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3):
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process the signal when its parent ends."""
    _prctl(_PDEATHSIG, number)


def landlock_abi() -> int:
    """The version of Landlock that the kernel speaks; 0 for none."""
    try:
        return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def landlock(read: list[str], write: list[str], port: int) -> None:
    """Give up for good all access to files but reading and executing below ``read`` and everything below ``write``,
    all listening on TCP but at ``port``, and signals to processes outside, as far as the kernel's Landlock goes."""
    abi = landlock_abi()
    if not abi:
        return
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", files, _BIND_TCP, _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS)
    attributes = attributes[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in read:
        _allow_below(ruleset, path, files & (_EXECUTE | _READ_FILE | _READ_DIR))
    for path in write:
        _allow_below(ruleset, path, files & ~(_MAKE_CHAR | _MAKE_BLOCK))
    if abi >= 4:
        _add_rule(ruleset, 2, struct.pack("=QQ", _BIND_TCP, port))
    _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def _allow_below(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib would double the time this takes to import
        access &= _ON_FILES
    else:
        access &= ~_IOCTL_DEV  # devices are controlled only if they are named
    _add_rule(ruleset, 1, struct.pack("=Qi", access, descriptor))
    os.close(descriptor)


def _add_rule(ruleset: int, kind: int, rule: bytes) -> None:
    _syscall(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(kind), rule, ctypes.c_uint32(0))


def _enter_pid_namespace() -> bool:
    """Let the next child be the first of a PID namespace; returns whether the kernel allows it."""
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWPID) == 0:
        return True
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID):
        return False
    for file, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
        # Without the maps the user looks like nobody to itself; access to files is the same.
        with contextlib.suppress(OSError), open(f"/proc/self/{file}", "w") as map_file:  # noqa: PTH123 - see above
            map_file.write(text)
    return True


def _launcher(spec: dict[str, Any]) -> int:
    die_with_parent(signal.SIGKILL)
    if os.getppid() != spec["parent"]:
        return EXIT_NOT_STARTED
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until somebody is there who handles it
    namespace = _enter_pid_namespace()
    launcher = os.pidfd_open(os.getpid())
    init = os.fork()
    if init == 0:
        os._exit(_init(spec, launcher, namespace))
    _forward_sigterm(lambda: os.kill(init, signal.SIGTERM))
    return _status(os.waitpid(init, 0)[1])


def _init(spec: dict[str, Any], launcher: int, namespace: bool) -> int:
    die_with_parent(signal.SIGKILL)
    if select.select([launcher], [], [], 0)[0]:
        return EXIT_NOT_STARTED  # the launcher ended before we had asked to die with it
    if not namespace:
        _prctl(_CHILD_SUBREAPER, 1)
    service = os.fork()
    if service == 0:
        _service(spec)
    _forward_sigterm(lambda: os.killpg(service, signal.SIGTERM))
    ended, status = 0, 0
    while ended != service:
        ended, status = os.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(service, signal.SIGKILL)
    return _status(status)


def _forward_sigterm(forward: Any) -> None:
    def handler(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            forward()

    signal.signal(signal.SIGTERM, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _service(spec: dict[str, Any]) -> NoReturn:
    try:
        die_with_parent(signal.SIGKILL)
        os.setsid()
        os.umask(0o022)
        os.chdir(spec["directory"])
        _give_up_rights(spec)
        command: list[str] | None = spec["command"]
        if command is None:  # a machine without a service: it is up until it is stopped
            signal.sigwait({signal.SIGTERM})
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - a shell would be one thing more to confine
    except (OSError, ValueError) as error:
        os.write(2, f"cannot start {spec['command']}: {error}\n".encode())
    os._exit(EXIT_NOT_STARTED)


def _give_up_rights(spec: dict[str, Any]) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    first = spec["port"] % len(cpus)
    os.sched_setaffinity(0, (cpus[first:] + cpus[:first])[: spec["cores"]])
    for limit, wanted in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 4096),
        (resource.RLIMIT_DATA, spec["memory_bytes"]),
    ):
        hard = resource.getrlimit(limit)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))
    for capability in range(64):
        with contextlib.suppress(OSError):  # not ours to drop, or more than the kernel knows
            _prctl(_CAPBSET_DROP, capability)
    _prctl(_NO_NEW_PRIVS, 1)
    landlock(spec["read"], spec["write"], spec["port"])


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        print(json.dumps({"landlock": landlock_abi(), "pid_namespace": _enter_pid_namespace()}))  # noqa: T201
    else:
        sys.exit(_launcher(json.loads(sys.argv[1])))
