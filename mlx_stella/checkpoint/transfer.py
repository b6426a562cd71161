"""A repository of the Hub into its cache, and back. The only network code.

Whoever answers as the Hub is not trusted: not to answer at all, not to send what was asked for, and
not with the token of another host. What goes wrong is one of three: the Hub was not reached, it
refused, or its answer was not understood.
"""

import contextlib
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import unquote

from mlx_stella.checkpoint import snapshot
from mlx_stella.errors import (
    HubUnreachableError,
    ModelNotFoundError,
    StellaWarning,
    kept_if_interrupted,
)

T = TypeVar("T")

FILES = ["*.json", "*.safetensors", "README.md", "LICENSE*"]
SKIP = ["onnx/*", "openvino/*", ".*", "consolidated*"]

_HUB = (("https", "huggingface.co"), ("https", "hf.co"))
_PATIENCE = 3
"""Requests without an answer, one behind the other, after which the Hub is given up."""
_NOTE_SECONDS = 3.0
"""Without an answer for so long, it is said that one waits."""
_UPLOAD_PATIENCE = 6
"""How many times longer an answer to something sent may take."""
_MAX_ANSWER_BYTES = 32 * 2**20
_NAMES = re.compile(r"[\w.+=:-]*")
"""What the Hub may name a commit or a file's content; its client makes paths of them."""

_HUNG_UP = re.compile(r"disconnected|closed connection")
"""What tells a connection that was closed from an answer that is no HTTP; one error is for both."""

_one_at_a_time = threading.Lock()


class _NotUnderstoodError(Exception):
    """An answer that no Hub gives."""


class _StoppedError(Exception):
    """Ctrl-C; nobody sees it."""


class _SilentError(Exception):
    """No answer for too long."""


class _RefusedError(Exception):
    """Too many requests; the client would wait for as long as the answer says."""


def download(repo: str, revision: str | None) -> Path:
    """The snapshot of a repository in the Hub's cache, with what a checkpoint consists of.

    Raises:
        ModelNotFoundError: the Hub refused, or the cache cannot be written to.
        HubUnreachableError: it was not reached, or its answer was not understood.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    def fetch(patterns: list[str]) -> Path:
        found = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, ignore_patterns=SKIP
        )
        return Path(found)

    def fetch_all() -> Path:
        directory = fetch(FILES)
        if patterns := list(snapshot.substitutes(directory)):
            fetch(patterns)
        if not (directory / "modules.json").exists():
            with contextlib.suppress(EntryNotFoundError):  # the cache remembers that there is none
                hf_hub_download(repo, "modules.json", revision=revision)
        return directory

    note = f"files of {repo} that were fetched whole are kept; run it again to fetch the others"
    with kept_if_interrupted(note), _told(repo, revision):
        with _guarded() as guard:
            directory = guard.run(fetch_all)
        if name := snapshot.drop_false(directory):
            raise _NotUnderstoodError(f"{name} is none")
    return directory


def upload(directory: Path, repo: str) -> str:
    """Put a directory on the Hub, into a repository that is made if there is none; its address.

    Raises:
        ModelNotFoundError: the Hub refused.
        HubUnreachableError: it was not reached, or its answer was not understood.
    """
    from huggingface_hub import HfApi

    note = f"{directory} is whole; to upload it: hf upload {repo} {directory}"
    with kept_if_interrupted(note), _told(repo, None), _guarded() as guard:
        api = HfApi()
        address = guard.run(lambda: api.create_repo(repo, exist_ok=True))
        guard.run(lambda: api.upload_folder(folder_path=directory, repo_id=repo))
    return str(address)


@contextlib.contextmanager
def _guarded() -> Iterator["_Guard"]:
    """Hold the requests of the Hub's client to :class:`_Guard`, those of this process one run
    at a time; the client that the process had, maybe made by itself, is there again behind it.

    Files of the Hub's Xet storage come by HTTP, too: the client for that storage has network code
    of its own, which knows neither these limits nor whose token it carries.
    """
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http  # where alone the present factory can be read

    with _one_at_a_time:
        present, guard = _http._GLOBAL_CLIENT_FACTORY, _Guard()
        without_xet = constants.HF_HUB_DISABLE_XET

        def make() -> Any:
            client = present()
            client.event_hooks["request"].append(guard.check_request)
            client.event_hooks["response"].append(guard.check_response)
            return client

        over = threading.Event()
        watcher = threading.Thread(target=guard.watch, args=(over,), daemon=True)
        set_client_factory(make)
        constants.HF_HUB_DISABLE_XET = True
        watcher.start()
        try:
            yield guard
        finally:
            over.set()
            watcher.join()
            constants.HF_HUB_DISABLE_XET = without_xet
            set_client_factory(present)


class _Guard:
    """What every request to the Hub, and every answer, is held to."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self._seconds = constants.HF_HUB_ETAG_TIMEOUT
        scheme, _, host = constants.ENDPOINT.partition("://")
        self._trusted = {*_HUB, (scheme, host.partition("/")[0])}
        self._asked: float | None = None  # when first, since the last answer
        self._is_stopped = False

    def run(self, work: Callable[[], T]) -> T:
        """What the work returns, which Ctrl-C ends at the next piece that comes.

        It is done in a thread: the client has threads of its own, and would first wait for what
        they are at, which may be gigabytes.
        """
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work)
            try:
                return future.result()
            except KeyboardInterrupt:
                self._is_stopped = True
                raise

    def watch(self, over: threading.Event) -> None:
        """Say once that one waits; for a thread, as whoever waits is in the client."""
        from huggingface_hub import constants

        while not over.wait(_NOTE_SECONDS / 8):
            asked = self._asked
            if asked is not None and time.monotonic() - asked > _NOTE_SECONDS:
                warnings.warn(
                    f"waiting for {constants.ENDPOINT}, which has not answered for "
                    f"{_NOTE_SECONDS:.0f} s; given up after {_PATIENCE * self._seconds:.0f} s",
                    StellaWarning,
                    stacklevel=2,
                )
                return

    def check_request(self, request: Any) -> None:
        if self._is_stopped:
            raise _StoppedError
        request.headers["accept-encoding"] = "identity"
        if self._is_trusted(request.url):
            _check_path(request.url.raw_path.decode())
        else:
            request.headers.pop("authorization", None)
        seconds = self._seconds
        if request.method in ("GET", "HEAD"):
            now = time.monotonic()
            if self._asked is None:
                self._asked = now
            elif now - self._asked > _PATIENCE * seconds:
                raise _SilentError(f"no answer in {now - self._asked:.0f} s")
        else:  # the Hub looks at what was sent before it answers
            seconds *= _UPLOAD_PATIENCE
        timeouts = request.extensions.get("timeout") or {}
        for kind in ("connect", "read", "write", "pool"):  # without one, the client waits for ever
            given = timeouts.get(kind)
            if given is None or request.method == "HEAD":
                timeouts[kind] = min(given or seconds, seconds)
        request.extensions["timeout"] = timeouts

    def check_response(self, response: Any) -> None:
        if response.status_code == 429:
            raise _RefusedError("429, too many requests")
        if response.status_code < 500:
            self._asked = None
        url = response.request.url
        is_kept_in_memory = self._is_trusted(url) and url.path.startswith("/api/")
        response.stream = self._body(response.stream, bounded=is_kept_in_memory)
        if not self._is_trusted(url):
            return
        for name in ("etag", "x-linked-etag", "x-repo-commit"):
            value = response.headers.get(name, "").removeprefix("W/").strip('"')
            if not _NAMES.fullmatch(value) or value in (".", ".."):
                raise _NotUnderstoodError(f"its header {name} is {value!r:.80}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _NotUnderstoodError("it is compressed, which was not asked for")
        if is_kept_in_memory and "location" in response.headers:
            target = url.join(response.headers["location"])
            if not self._is_trusted(target):
                raise _NotUnderstoodError(f"it leads to {target}")

    def _body(self, stream: Any, *, bounded: bool) -> Any:
        """The body of an answer until it is stopped; ``bounded``, up to a size and a time."""
        guard, seconds = self, self._seconds * _PATIENCE

        class Body(_http_library().SyncByteStream):  # type: ignore[misc]  # known at run time
            def __iter__(self) -> Iterator[bytes]:
                taken, end = 0, time.monotonic() + seconds
                for piece in stream:
                    taken += len(piece)
                    if guard._is_stopped:
                        raise _StoppedError
                    if bounded and taken > _MAX_ANSWER_BYTES:
                        raise _NotUnderstoodError(f"it has over {_MAX_ANSWER_BYTES:,} bytes")
                    if bounded and time.monotonic() > end:
                        raise _SilentError(f"an answer that does not end in {seconds:.0f} s")
                    yield piece

            def close(self) -> None:
                stream.close()

        return Body()

    def _is_trusted(self, url: Any) -> bool:
        """Whether it is the Hub's, which alone is told the token and whose names are used."""
        return (url.scheme, url.netloc.decode()) in self._trusted


def _check_path(raw: str) -> None:
    """Refuse an address that a false name of a commit made: the client makes paths of it, too."""
    path = unquote(raw.partition("?")[0])
    if "//" in path or ".." in path.split("/"):
        raise _NotUnderstoodError(f"it leads to {path}")


def _http_library() -> ModuleType:
    """What the Hub's client speaks HTTP with: httpx, from its version 2 on httpx2."""
    from huggingface_hub.errors import HfHubHTTPError

    return import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])


@contextlib.contextmanager
def _told(repo: str, revision: str | None) -> Iterator[None]:
    """Tell whatever the Hub's client raises, which may be anything: it trusts what it is sent."""
    try:
        yield
    except Exception as error:
        raise _tell(repo, revision, error) from None


def _tell(repo: str, revision: str | None, error: BaseException) -> ModelNotFoundError:
    from huggingface_hub import constants, errors

    http = _http_library()
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        match cause:
            case errors.HFValidationError():
                return ModelNotFoundError(
                    f"no Hub id ({_line(cause)})", where=repo, remedy="owner/name"
                )
            case errors.RevisionNotFoundError():
                return ModelNotFoundError(
                    f"the Hub has no revision {revision!r}",
                    where=repo,
                    remedy="a branch, tag or commit",
                )
            case errors.GatedRepoError():
                address = f"{constants.ENDPOINT}/{repo}"
                return ModelNotFoundError(
                    "the Hub wants you to log in",
                    where=repo,
                    remedy=f"accept its licence at {address}, then run: hf auth login",
                )
            case _RefusedError():
                return _refused(repo, str(cause))
            case errors.HfHubHTTPError() if cause.response.status_code < 500:
                return _refused(repo, _STATUS.get(cause.response.status_code, _line(cause)))
            case errors.HfHubHTTPError():
                return _unreachable(repo, f"it is out of order ({cause.response.status_code})")
            case errors.OfflineModeIsEnabled():
                return _unreachable(repo, "HF_HUB_OFFLINE is set")
            case _SilentError():
                return _unreachable(repo, _line(cause))
            case http.TimeoutException():
                return _unreachable(repo, f"no answer in {constants.HF_HUB_ETAG_TIMEOUT} s")
            case http.NetworkError() | http.ProxyError():
                return _unreachable(repo, _line(cause))
            case http.RemoteProtocolError() if _HUNG_UP.search(str(cause)):
                return _unreachable(repo, "it closed the connection")
            case http.HTTPError() | errors.FileMetadataError() | _NotUnderstoodError():
                return _not_understood(repo, cause)
            case OSError(errno=int(), strerror=reason):
                return ModelNotFoundError(
                    f"cannot be kept in the cache ({reason})",
                    where=cause.filename or repo,
                    remedy="mend that, or set HF_HOME to another place",
                )
    return _not_understood(repo, error)


_STATUS = {
    401: "401, it does not know you, or has no such repository",
    403: "403, you may not read it",
    404: "404, there is no such repository, or it is private",
}


def _refused(repo: str, reason: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"the Hub refused ({reason})",
        where=repo,
        remedy="check the name, or run: hf auth login",
    )


def _unreachable(repo: str, reason: str) -> HubUnreachableError:
    return HubUnreachableError(f"the Hub cannot be reached ({reason})", where=repo)


def _not_understood(repo: str, error: BaseException) -> HubUnreachableError:
    from huggingface_hub import constants

    return HubUnreachableError(
        f"what answers at {constants.ENDPOINT} was not understood ({_line(error)})",
        where=repo,
    )


def _line(error: BaseException) -> str:
    """The first line of what an error says, which may repeat an answer."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{lines[0]:.200}" if lines else type(error).__name__
