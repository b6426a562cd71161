"""What is said where a package is missing: a command that works for this very installation."""

import importlib.util
import json
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import ROOT

from mlx_stella import MissingExtraError
from mlx_stella.machine import packages


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Makes this an installation outside of a clone, from what pip was given."""

    def install(url: str | None) -> None:
        record = None if url is None else json.dumps({"url": url, "dir_info": {}})
        found = SimpleNamespace(read_text=lambda name: record)
        monkeypatch.setattr(packages, "distribution", lambda name: found)

    monkeypatch.setattr(packages, "__file__", str(tmp_path / "site/mlx_stella/machine/packages.py"))
    monkeypatch.setattr(packages, "_installer", lambda: "pip install")
    install(None)
    return install


def test_the_missing_package_and_the_remedy_are_named(monkeypatch):
    monkeypatch.setitem(packages.EXTRAS, "search", ("no_such_package", "numpy"))
    with pytest.raises(MissingExtraError) as error:
        packages.require("search")
    remedy = packages.installation("search")
    assert str(error.value) == f"no_such_package: not installed; remedy: {remedy}"


def test_vectors_of_parts_are_read_with_pyarrow():
    """In a process of its own, where nothing has imported it before."""
    script = f"""
import sys
sys.modules["pyarrow"] = None  # as if it were not installed
sys.path.insert(0, {str(ROOT)!r})
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "pyarrow" else find(name)
from mlx_stella import MissingExtraError
from mlx_stella.bulk import read_vectors
try:
    read_vectors("parts")
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pyarrow" in done.stdout and "[search]" in done.stdout, done.stderr


def test_in_a_clone_it_is_the_clone():
    assert packages.installation("search").endswith(f"install --editable '{ROOT}[search]'")


def test_a_folder_of_an_odd_name_is_quoted(installed, tmp_path):
    clone = tmp_path / "my clone"
    clone.mkdir()
    installed(clone.as_uri())
    assert packages.installation("qdrant") == f"pip install '{clone}[qdrant]'"


def test_from_pypi_it_is_the_name(installed):
    assert packages.installation("search") == "pip install 'mlx-stella[search]'"


def test_a_clone_that_is_gone_is_not_named(installed, tmp_path):
    installed((tmp_path / "gone").as_uri())
    assert packages.installation("search") == "pip install 'mlx-stella[search]'"


def test_without_any_record(installed, monkeypatch):
    def fail(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", fail)
    assert packages.installation("search") == "pip install 'mlx-stella[search]'"


@pytest.mark.parametrize(
    "file, command",
    [
        ("pipx_metadata.json", "pipx install --force"),
        ("uv-receipt.toml", "uv tool install --force"),
    ],
)
def test_an_environment_of_pipx_or_uv_is_left_to_them(monkeypatch, tmp_path, file, command):
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert packages.installation("search").startswith(f"{command} --editable ")


def test_pip_is_that_of_this_python(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    bin = Path(sys.executable).parent
    monkeypatch.setattr(shutil, "which", lambda name: str(bin / "pip"))
    assert packages._installer() == "pip install"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/elsewhere/pip")
    assert packages._installer() == f"{sys.executable} -m pip install"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert packages._installer() == f"uv pip install --python {sys.executable}"
