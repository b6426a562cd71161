"""The server as a service of its user: started at login, started again when it dies.

On macOS a LaunchAgent, on Linux a unit of systemd's user instance. No shell sees the arguments:
launchd is given a list, systemd a line in its own quoting.
"""

import os
import plistlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_stella.errors import InputError, OutputError, StellaError
from mlx_stella.files import atomic

LABEL = "io.github.mlx-stella.serve"
UNIT = "mlx-stella.service"
CONSENT = (
    "folders such as Documents, Desktop and iCloud Drive may be closed to services; "
    "remedy: System Settings, Privacy & Security, Full Disk Access, for this Python"
)

_KEPT = re.compile(r"MLX_STELLA_\w+|HF_(HOME|HUB_CACHE|HUB_OFFLINE|ENDPOINT)|XDG_CACHE_HOME")
"""Variables that decide which model is found. A token for the Hub stays where the Hub keeps it."""

_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that steer, and halves of characters: neither kind of file holds them."""

_BOOT_ATTEMPTS = 10


@dataclass(frozen=True)
class State:
    """What the system says of a service.

    Attributes:
        installed: its file is there.
        pid: of the process that runs, or None.
        arguments: of ``serve``, as installed.
    """

    installed: bool
    pid: int | None
    arguments: tuple[str, ...]


class Service(Protocol):
    """What each system's kind of service can do.

    Attributes:
        file: by which the system knows it.
        logs: where its words are found.
    """

    @property
    def file(self) -> Path: ...

    @property
    def logs(self) -> str: ...

    def text(self, arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
        """The file that has the system run ``mlx-stella serve`` with the arguments."""

    def start(self) -> None:
        """Have the system read the file and run it, in place of what ran before."""

    def stop(self) -> None:
        """Have the system forget it; what runs ends."""

    def state(self) -> State:
        """What is known of it."""


def of_this_system(home: Path | None = None) -> Service:
    """The kind of service that this system has."""
    home = home or Path.home()
    return LaunchAgent(home) if sys.platform == "darwin" else SystemdUnit(home)


def install(service: Service, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Write the file, for its owner's eyes as it may hold a key, and start the service.

    Raises:
        InputError: an argument cannot be handed over.
        OutputError: the file cannot be written; nothing is left behind.
        StellaError: the system does not start it; the file is gone again.
    """
    kept = {name: value for name, value in environment.items() if _KEPT.fullmatch(name)}
    for word in (*arguments, *kept.values()):
        if _UNWRITABLE.search(word):
            raise InputError("cannot be written down", where=ascii(word), remedy="rename it")
    try:
        service.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.unwritable(error, service.file.parent) from None
    with atomic.whole(service.file) as (file,):
        os.fchmod(file.fileno(), 0o600)
        file.write(service.text(arguments, kept))
    try:
        service.start()
    except StellaError:
        service.file.unlink()
        raise


def uninstall(service: Service) -> None:
    """Stop the service and remove its file.

    Raises:
        InputError: it is not installed.
        OutputError: the file cannot be removed.
    """
    if not service.file.exists():
        raise InputError("no service is installed", where=service.file)
    service.stop()
    try:
        service.file.unlink()
    except OSError as error:
        raise OutputError(f"could not be removed ({error.strerror})", where=service.file) from None


@dataclass(frozen=True)
class LaunchAgent:
    """A property list for launchd, which is told of it by launchctl."""

    home: Path

    @property
    def file(self) -> Path:
        return self.home / "Library/LaunchAgents" / f"{LABEL}.plist"

    @property
    def logs(self) -> str:
        return str(self.home / "Library/Logs/mlx-stella.log")

    def text(self, arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
        return plistlib.dumps(
            {
                "Label": LABEL,
                "ProgramArguments": _command(arguments),
                "EnvironmentVariables": dict(environment),
                "WorkingDirectory": str(self.home),
                "RunAtLoad": True,
                "KeepAlive": {"SuccessfulExit": False},  # one that finds another serving ends well
                "ProcessType": "Interactive",  # else it is held to a share of the processor
                "StandardOutPath": self.logs,
                "StandardErrorPath": self.logs,
            }
        )

    def start(self) -> None:
        self.stop()
        for attempt in range(_BOOT_ATTEMPTS):
            done = _call("launchctl", "bootstrap", self._domain, str(self.file))
            if done.returncode == 0:
                return
            if attempt + 1 < _BOOT_ATTEMPTS:
                time.sleep(0.5)  # what ran before may not have ended yet
        raise _failed(done)

    def stop(self) -> None:
        _call("launchctl", "bootout", f"{self._domain}/{LABEL}")  # fails if it is not there

    def state(self) -> State:
        found = _call("launchctl", "print", f"{self._domain}/{LABEL}").stdout
        pid = re.search(r"^\s*pid = (\d+)$", found, re.MULTILINE)
        return State(self.file.exists(), int(pid[1]) if pid else None, self._arguments())

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def _arguments(self) -> tuple[str, ...]:
        if not self.file.exists():
            return ()
        try:
            words = plistlib.loads(self.file.read_bytes())["ProgramArguments"]
            return tuple(words[len(_command()) :])
        except (ValueError, KeyError, TypeError, plistlib.InvalidFileException) as error:
            raise _unreadable(self.file) from error


@dataclass(frozen=True)
class SystemdUnit:
    """A unit of systemd's user instance, which is told of it by systemctl."""

    home: Path

    @property
    def file(self) -> Path:
        config = Path(os.environ.get("XDG_CONFIG_HOME") or self.home / ".config")
        return config / "systemd/user" / UNIT

    @property
    def logs(self) -> str:
        return f"journalctl --user -u {UNIT}"

    def text(self, arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
        program, *words = map(_quoted, _command(arguments))
        command = " ".join([program, *(word.replace("$", "$$") for word in words)])
        variables = [f"Environment={_quoted(f'{k}={v}')}" for k, v in environment.items()]
        lines = [
            "[Unit]",
            "Description=mlx-stella: text embeddings for programs on this machine",
            "[Service]",
            f"ExecStart={command}",
            *variables,
            "Restart=on-failure",
            "RestartSec=5",
            "SuccessExitStatus=143",  # asked to end by SIGTERM
            "[Install]",
            "WantedBy=default.target",
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def start(self) -> None:
        for words in (("daemon-reload",), ("enable", UNIT), ("restart", UNIT)):
            done = _call("systemctl", "--user", *words)
            if done.returncode:
                raise _failed(done)

    def stop(self) -> None:
        _call("systemctl", "--user", "disable", "--now", UNIT)

    def state(self) -> State:
        found = _call("systemctl", "--user", "show", "--property=MainPID", "--value", UNIT).stdout
        pid = int(found) if found.strip().isdecimal() else 0
        return State(self.file.exists(), pid or None, self._arguments())

    def _arguments(self) -> tuple[str, ...]:
        if not self.file.exists():
            return ()
        line = re.search(r"^ExecStart=(.+)$", self.file.read_text("utf-8"), re.MULTILINE)
        if line is None:
            raise _unreadable(self.file)
        words = shlex.split(line[1].replace("$$", "$").replace("%%", "%"))
        return tuple(words[len(_command()) :])


def _command(arguments: Sequence[str] = ()) -> list[str]:
    """-P: what lies in the folder it is started in is not imported."""
    return [sys.executable, "-P", "-m", "mlx_stella", "serve", *arguments]


def _quoted(word: str) -> str:
    """A word as systemd reads it back; % would start a specifier."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _call(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise StellaError(
            "not found", where=words[0], remedy="mlx-stella serve runs without a service, too"
        ) from None
    except subprocess.TimeoutExpired:
        raise StellaError("gives no answer", where=" ".join(words)) from None


def _failed(done: subprocess.CompletedProcess[str]) -> StellaError:
    said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
    return StellaError(said, where=" ".join(done.args))


def _unreadable(file: Path) -> StellaError:
    return StellaError(
        "not as this program writes it", where=file, remedy="mlx-stella service install, again"
    )
