"""The server as a service of launchd or systemd: what is written, and what is called.

Neither system is asked: launchctl and systemctl are scripts that note what they are told.
"""

import os
import plistlib
import shlex
import shutil
import subprocess
import sys

import pytest
from support import commands

from mlx_stella.errors import InputError, StellaError
from mlx_stella.server import service
from mlx_stella.server.service import CONSENT, LABEL, UNIT, LaunchAgent, SystemdUnit

WORDS = (
    "--model",
    "m",
    "--index",
    "my notes=/a b/c$d%e\"f'g\\h.index",
    "--x",
    "ü<&>",
)
ENVIRONMENT = {
    "MLX_STELLA_API_KEY": 'k%"$\\',
    "HF_HOME": "/a b",
    "HF_TOKEN": "secret",
    "PATH": "/bin",
}


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """Scripts in the place of launchctl and systemctl; their calls, and what they answer."""
    log, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()

    def answer(output: str = "", status: int = 0) -> None:
        for name in ("launchctl", "systemctl"):
            script = folder / name
            script.write_text(
                f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(log))}\n'
                f"printf %s {shlex.quote(output)}\nexit {status}\n"
            )
            script.chmod(0o755)

    answer()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(service, "_BOOT_ATTEMPTS", 1)
    answer.calls = lambda: log.read_text().splitlines() if log.exists() else []
    return answer


def test_an_agent_of_launchd(tmp_path, fakes):
    agent = LaunchAgent(tmp_path)
    service.install(agent, WORDS, ENVIRONMENT)
    assert agent.file == tmp_path / f"Library/LaunchAgents/{LABEL}.plist"
    assert agent.file.stat().st_mode & 0o777 == 0o600  # it may hold a key
    written = plistlib.loads(agent.file.read_bytes())
    assert written["ProgramArguments"] == [
        sys.executable,
        *"-P -m mlx_stella serve".split(),
        *WORDS,
    ]
    assert written["EnvironmentVariables"] == {
        name: ENVIRONMENT[name] for name in ("MLX_STELLA_API_KEY", "HF_HOME")
    }
    assert written["KeepAlive"] == {"SuccessfulExit": False}
    assert (written["ProcessType"], written["RunAtLoad"]) == ("Interactive", True)
    assert written["StandardErrorPath"] == str(tmp_path / "Library/Logs/mlx-stella.log")
    domain = f"gui/{os.getuid()}"
    assert fakes.calls() == [
        f"launchctl bootout {domain}/{LABEL}",
        f"launchctl bootstrap {domain} {agent.file}",
    ]
    fakes(f"{domain}/{LABEL} = {{\n\tstate = running\n\tpid = 4711\n}}\n")
    assert agent.state() == service.State(True, 4711, WORDS)
    service.uninstall(agent)
    assert fakes.calls()[-1] == f"launchctl bootout {domain}/{LABEL}"
    fakes("Could not find service", status=113)
    assert agent.state() == service.State(False, None, ())


@pytest.mark.skipif(not shutil.which("plutil"), reason="plutil is a program of macOS")
def test_plutil_takes_the_property_list(tmp_path, fakes):
    agent = LaunchAgent(tmp_path)
    service.install(agent, WORDS, ENVIRONMENT)
    subprocess.run(["plutil", "-lint", agent.file], check=True)


def test_a_unit_of_systemd(tmp_path, fakes):
    unit = SystemdUnit(tmp_path)
    service.install(unit, WORDS, ENVIRONMENT)
    assert unit.file == tmp_path / f".config/systemd/user/{UNIT}"
    assert unit.file.stat().st_mode & 0o777 == 0o600
    text = unit.file.read_text()
    quoted = r'"my notes=/a b/c$$d%%e\"f' + r"'g\\h.index" + '"'
    assert f'"serve" "--model" "m" "--index" {quoted} "--x" "ü<&>"\n' in text
    assert 'Environment="MLX_STELLA_API_KEY=k%%\\"$\\\\"\n' in text
    assert "HF_TOKEN" not in text and "Restart=on-failure\n" in text
    assert fakes.calls() == [
        "systemctl --user daemon-reload",
        f"systemctl --user enable {UNIT}",
        f"systemctl --user restart {UNIT}",
    ]
    fakes("815\n")
    assert unit.state() == service.State(True, 815, WORDS)
    service.uninstall(unit)
    assert fakes.calls()[-1] == f"systemctl --user disable --now {UNIT}"
    fakes("0\n")
    assert unit.state() == service.State(False, None, ())


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_systemd_takes_the_unit(tmp_path, fakes, monkeypatch):
    unit = SystemdUnit(tmp_path)
    service.install(unit, WORDS, ENVIRONMENT)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", unit.file], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("kind", [LaunchAgent, SystemdUnit])
def test_what_fails_leaves_nothing_behind(kind, tmp_path, fakes):
    fakes("no bus", status=1)
    with pytest.raises(StellaError, match=r"ctl .*: no bus"):
        service.install(kind(tmp_path), WORDS, ENVIRONMENT)
    assert not kind(tmp_path).file.exists()
    with pytest.raises(InputError, match="no service is installed"):
        service.uninstall(kind(tmp_path))
    for word in ("a\nb", "a\0", "\udcff"):
        with pytest.raises(InputError, match="cannot be written down"):
            service.install(kind(tmp_path), [word], {})


def test_a_file_of_somebody_else_is_told(tmp_path, fakes):
    for kind in (LaunchAgent(tmp_path), SystemdUnit(tmp_path)):
        kind.file.parent.mkdir(parents=True)
        kind.file.write_bytes(b"broken")
        with pytest.raises(StellaError, match="service install, again"):
            kind.state()


def test_a_system_without_either_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StellaError, match="launchctl: not found; remedy: mlx-stella serve"):
        service.install(LaunchAgent(tmp_path), (), {})


@pytest.fixture
def user(tmp_path, fakes, monkeypatch):
    """A home without a service; the command line, run in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MLX_STELLA_API_KEY", raising=False)
    return lambda run, *words, **options: run("service", *words, cwd=tmp_path, **options)


def test_the_verb_installs_shows_and_removes(user, running, fakes, tmp_path):
    words = ("--model", "a", "--port", str(running.port))
    user(commands.succeed, "install", "--", *words)
    file = service.of_this_system().file
    assert service.of_this_system().state().arguments == words
    fakes("\tpid = 4711\n" if sys.platform == "darwin" else "4711\n")
    shown = user(commands.succeed, "status")
    assert "Running:   yes, process 4711\n" in shown
    assert f"Answers:   yes, at port {running.port}\n" in shown
    assert f"Models:    {running.model} (loaded)\n" in shown
    user(commands.succeed, "uninstall")
    assert not file.exists()
    fakes("", status=1)
    assert "Installed: no\nRunning:   no\n" in user(commands.succeed, "status")


def test_the_verb_refuses_what_would_fail_at_each_start(user, fakes, tmp_path):
    (tmp_path / "folder").mkdir()
    for words, told in {
        ("--model", "folder"): f"another folder; remedy: {tmp_path}/folder",
        ("--model", "m", "--index", "a=b/c"): f"another folder; remedy: a={tmp_path}/b/c",
        ("--model", "m", "--uds", "s"): "another folder",
        ("--model", "m", "--port", "0"): "would differ from start to start",
        ("--model", "m", "--host", "0.0.0.0"): "open to everybody in the network",
    }.items():
        assert told in user(commands.fail, "install", "--", *words)
    assert "no model given" in user(commands.fail, "install", model="")
    assert "only install takes options" in user(commands.fail, "status", "x")
    status, _, error = user(commands.run, "install", "--", "--model", "m", "--nonsense")
    assert status == 2 and "--nonsense" in error
    assert not fakes.calls()


def test_consent_is_spoken_of():
    assert "Documents" in CONSENT and "iCloud" in CONSENT
