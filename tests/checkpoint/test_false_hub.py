"""The Hub as an adversary: whatever answers, one line tells which of three it is."""

import contextlib
import json
import os
import signal
import time

import pytest
from support import CHECKPOINTS
from support.commands import run
from support.false_hub import (
    COMMIT,
    TOKEN,
    body,
    broken_off,
    closed,
    damaged_gzip,
    endless,
    garbage,
    serving,
    silence,
    to,
    vast,
)

from mlx_stella import HubUnreachableError, ModelNotFoundError
from mlx_stella.checkpoint import hub, transfer

HTML = b"<!DOCTYPE html>\n<html><title>\x1b]0;own\x07Log in</title></html>"
NAME = "owner/name"


def api(sha: str) -> bytes:
    return json.dumps({"id": NAME, "sha": sha}).encode()


def tree(*paths: str) -> bytes:
    return json.dumps(
        [{"type": "file", "path": path, "size": 2, "oid": "1"} for path in paths]
    ).encode()


def wait_little(monkeypatch, seconds: float = 0.1) -> None:
    """For what never answers: as long as the client waits, a machine at work may take to answer."""
    from huggingface_hub import constants

    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, seconds)


UNREACHABLE, REFUSED, ODD = "cannot be reached", "refused", "was not understood"

ANSWERS = {
    "info: HTML": ("GET /api/models", body(HTML), ODD),
    "info: HTML, said to be so": (
        "GET /api/models",
        body(HTML, **{"Content-Type": "text/html"}),
        ODD,
    ),
    "info: nothing": ("GET /api/models", body(b""), ODD),
    "info: garbage": ("GET /api/models", garbage, ODD),
    "info: bytes": ("GET /api/models", body(b"\xff\xfe\0\x1b[2J"), ODD),
    "info: a list": ("GET /api/models", body(b"[]"), ODD),
    "info: a number": ("GET /api/models", body(b"7"), ODD),
    "info: null": ("GET /api/models", body(b"null"), ODD),
    "info: an empty table": ("GET /api/models", body(b"{}"), ODD),
    "info: no commit": ("GET /api/models", body(b'{"id": "o/n"}'), ODD),
    "info: a commit that is a list": ("GET /api/models", body(b'{"id": "o/n", "sha": [1]}'), ODD),
    "info: a commit elsewhere": ("GET /api/models/owner/name", body(api("../../../../out")), ODD),
    "info: deep": ("GET /api/models", body(b"[" * 10**5), ODD),
    "info: a wrong type": ("GET /api/models", body(b'{"id": 1, "sha": "a", "siblings": 3}'), ODD),
    "info: a loop": ("GET /api/models", to("/api/models/owner/name"), ODD),
    "info: a file": ("GET /api/models", to("file:///etc/passwd"), ODD),
    "info: another host": ("GET /api/models", to("http://localhost:1/api"), ODD),
    "info: no address": ("GET /api/models", to("http://[::"), ODD),
    "info: damaged gzip": ("GET /api/models", damaged_gzip, ODD),
    "info: broken off": ("GET /api/models", broken_off, UNREACHABLE),
    "info: endless": ("GET /api/models", endless, UNREACHABLE),
    "info: vast": ("GET /api/models", vast, ODD),
    "info: closed": ("GET /api/models", closed, UNREACHABLE),
    "info: silence": ("GET /api/models", silence, UNREACHABLE),
    "info: 401": ("GET /api/models", body(b"", 401), REFUSED),
    "info: 403": ("GET /api/models", body(HTML, 403), REFUSED),
    "info: 404": ("GET /api/models", body(b'{"error": "no"}', 404), REFUSED),
    "info: 418": ("GET /api/models", body(b'{"error": ["a\\u001b[2J"]}', 418), REFUSED),
    "info: 429": ("GET /api/models", body(b"", 429, **{"Retry-After": "9999"}), REFUSED),
    "info: 404, an odd error": ("GET /api/models", body(b"[1]", 404), ODD),
    "info: 500": ("GET /api/models", body(HTML, 500), UNREACHABLE),
    "info: 503": ("GET /api/models", body(b"", 503), UNREACHABLE),
    "list: HTML": ("/tree/", body(HTML), ODD),
    "list: a table": ("/tree/", body(b'{"error": "no"}'), ODD),
    "list: a list of numbers": ("/tree/", body(b"[1]"), ODD),
    "list: paths that climb": ("/tree/", body(tree("a/../../../../../out.json")), ODD),
    "list: absolute paths": ("/tree/", body(tree("/tmp/mlx-stella-out.json")), ODD),
    "list: silence": ("/tree/", silence, UNREACHABLE),
    "list: 429": ("/tree/", body(b"", 429, **{"Retry-After": "9999"}), REFUSED),
    "list: 503": ("/tree/", body(b"", 503), UNREACHABLE),
    "file: HTML": ("config.json", body(HTML), ODD),
    "file: no headers": ("config.json", body(b"{}", ETag="", **{"X-Repo-Commit": ""}), ODD),
    "file: a name that climbs": ("config.json", body(b"{}", ETag='"../../../../out"'), ODD),
    "file: a commit that climbs": ("config.json", body(b"{}", **{"X-Repo-Commit": "../out"}), ODD),
    "file: a loop": ("config.json", to(f"/owner/name/resolve/{COMMIT}/config.json"), ODD),
    "file: of this machine": ("config.json", to("file:///etc/passwd"), ODD),
    "file: broken off": (
        "GET /owner/name/resolve/" + COMMIT + "/config.json",
        broken_off,
        UNREACHABLE,
    ),
    "file: closed": ("GET /owner/name/resolve/" + COMMIT + "/config.json", closed, UNREACHABLE),
    "file: silence": ("config.json", silence, UNREACHABLE),
    "file: silence after its head": ("GET /owner/name/resolve", silence, UNREACHABLE),
    "file: 403": ("config.json", body(b"", 403), REFUSED),
    "file: 404": ("config.json", body(b"", 404), REFUSED),
    "file: 503": ("config.json", body(b"", 503), UNREACHABLE),
    "file: damaged gzip": ("GET /owner/name/resolve", damaged_gzip, ODD),
    "weights: HTML": ("model.safetensors", body(HTML), ODD),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_one_line_of_three(online, tmp_path, monkeypatch, name):
    part, way, kind = ANSWERS[name]
    if way in (silence, endless):
        wait_little(monkeypatch)
    online.ways[part] = way
    begun = time.monotonic()
    status, output, error = run("info", NAME, cwd=tmp_path)
    assert time.monotonic() - begun < 10
    last = error.splitlines()[-1]
    assert status == 1 and not output and "Traceback" not in error
    assert last.startswith(f"mlx-stella: {NAME}: ") and kind in last, last
    assert last.isprintable()
    if status_word := name.partition(": ")[2]:
        assert not status_word.isdigit() or int(status_word) >= 500 or status_word in last
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and "hub" not in p.parts]
    assert not outside


def test_the_false_hub_answers_as_the_hub_does(online):
    """Or the tests above show nothing."""
    found = hub.resolve(NAME)
    assert found.directory.name == COMMIT and found.repo == NAME
    assert (found.directory / "model.safetensors").is_file()
    assert {token for _, _, token in online.asked} == {f"Bearer {TOKEN}"}


def test_what_was_downloaded_is_found_without_the_hub(online):
    """Though it lists files that nobody wants, such as expected.npz here."""
    found, asked = hub.resolve(NAME), len(online.asked)
    assert hub.resolve(NAME) == found and len(online.asked) == asked


def test_a_pickle_is_fetched_where_there_is_nothing_better(online, copy_of, monkeypatch):
    """LaBSE's Dense layer is one."""
    directory = copy_of("tiny-stella-1.5b")
    monkeypatch.setattr(online, "directory", directory)
    (directory / "2_Dense_1024/model.safetensors").unlink()
    for name in ("pytorch_model.bin", "2_Dense_1024/pytorch_model.bin"):
        (directory / name).write_bytes(b"PK")
    (directory / "vocab.txt").touch()
    found = hub.resolve(NAME).directory
    assert (found / "2_Dense_1024/pytorch_model.bin").is_file()
    assert not (found / "pytorch_model.bin").exists() and not (found / "vocab.txt").exists()


def test_a_vocabulary_and_shards_of_pickles_are_fetched(online, copy_of, monkeypatch):
    """stella-mrl-large-zh-v3.5 has no tokenizer.json."""
    directory, shard = copy_of("tiny-stella-zh-v2"), "pytorch_model-00001-of-00001.bin"
    monkeypatch.setattr(online, "directory", directory)
    (directory / "model.safetensors").unlink()
    (directory / "tokenizer.json").unlink()
    (directory / shard).write_bytes(b"PK")
    index = {"weight_map": {"a": shard}}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (directory / "vocab.txt").touch()
    found = hub.resolve(NAME).directory
    assert (found / shard).is_file() and (found / "vocab.txt").is_file()


def test_a_pickle_that_is_a_page_is_not_kept(online, copy_of, monkeypatch):
    directory = copy_of("tiny-stella-zh-v2")
    monkeypatch.setattr(online, "directory", directory)
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(HTML)
    with pytest.raises(HubUnreachableError, match=r"pytorch_model[.]bin is none"):
        hub.resolve(NAME)


@pytest.mark.parametrize("way", ["redirect", "next page"])
def test_the_token_is_told_to_no_other_host(online, way):
    with serving(CHECKPOINTS / "tiny-stella-zh-v2") as other:
        elsewhere = other.address.replace("127.0.0.1", "localhost")
        if way == "redirect":
            online.ways["model.safetensors"] = lambda handler: to(elsewhere + handler.path)(handler)
        else:
            link = {"Link": f'<{elsewhere}/api/models/o/n/tree/x>; rel="next"'}
            online.ways["/tree/"] = body(b"[]", **link)
        with contextlib.suppress(ModelNotFoundError):
            hub.resolve(NAME)
        assert other.asked and {token for _, _, token in other.asked} == {None}
    assert {token for _, _, token in online.asked} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_not_what_its_name_says_is_not_kept(online, tmp_path, name):
    online.ways[name] = body(HTML)
    with pytest.raises(HubUnreachableError, match=f"{name.replace('.', '[.]')} is none"):
        hub.resolve(NAME)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not any(path.read_bytes() == HTML for path in kept)
    del online.ways[name]
    assert hub.resolve(NAME).repo == NAME


def test_files_of_xet_storage_come_by_the_guarded_client(online, monkeypatch):
    """The client for that storage is compiled code that opens connections of its own."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _runtime

    called = []
    monkeypatch.setattr(_runtime, "is_package_available", lambda name: True)
    monkeypatch.setattr(file_download, "xet_get", lambda **arguments: called.append(arguments))
    content = (CHECKPOINTS / "tiny-stella-zh-v2/model.safetensors").read_bytes()
    headers = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{online.address}/api/token"}
    online.ways["model.safetensors"] = body(content, **headers)
    assert (hub.resolve(NAME).directory / "model.safetensors").read_bytes() == content
    assert not called


def test_one_line_tells_that_one_waits(online, tmp_path, monkeypatch):
    wait_little(monkeypatch, 0.3)
    monkeypatch.setattr(transfer, "_NOTE_SECONDS", 0.05)
    online.ways["GET /api/models"] = silence
    status, _, error = run("info", NAME, cwd=tmp_path)
    note, last = error.splitlines()
    assert note.startswith(f"mlx-stella: note: waiting for {online.address}, ") and status == 1
    assert UNREACHABLE in last


def test_ctrl_c_ends_a_download_at_once(online, tmp_path):
    """Not when the file is done, though the client's own threads are amid it."""
    sent = []

    def slowly(handler):
        handler.send_response(200)
        for name, value in (("Content-Length", "1000000"), ("ETag", '"1"')):
            handler.send_header(name, value)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.end_headers()
        if handler.command == "GET":
            os.kill(os.getpid(), signal.SIGINT)
            while len(sent) < 100 and not handler.hub.over.wait(0.05):
                handler.wfile.write(b"{" * 10_000)
                sent.append(1)

    online.ways["model.safetensors"] = slowly
    status, _, error = run("info", NAME, cwd=tmp_path)
    assert status == 130 and len(sent) < 100
    kept = f"files of {NAME} that were fetched whole are kept; run it again to fetch the others"
    assert error.splitlines()[-1] == f"mlx-stella: interrupted; {kept}"
    del online.ways["model.safetensors"]
    assert hub.resolve(NAME).repo == NAME


def test_the_client_is_as_before(online):
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    factory, without_xet = _http._GLOBAL_CLIENT_FACTORY, constants.HF_HUB_DISABLE_XET
    online.ways["/api/"] = body(HTML)
    with pytest.raises(HubUnreachableError):
        hub.resolve(NAME)
    assert _http._GLOBAL_CLIENT_FACTORY is factory
    assert constants.HF_HUB_DISABLE_XET is without_xet


def test_a_hub_that_is_not_there(online, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubUnreachableError, match=r"cannot be reached.*refused"):
        hub.resolve(NAME)


def test_a_full_disk_is_not_the_hubs_fault(online, tmp_path):
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(ModelNotFoundError, match="cannot be kept in the cache"):
        hub.resolve(NAME)


@pytest.mark.parametrize(
    "way, kind", [(body(HTML), ODD), (body(b"", 403), REFUSED), (silence, UNREACHABLE)]
)
def test_an_upload_that_fails(online, monkeypatch, way, kind):
    from support.false_hub import Handler

    if way is silence:
        wait_little(monkeypatch)
    Handler.do_POST = Handler.do_GET
    online.ways["/api/"] = way
    with pytest.raises(ModelNotFoundError, match=rf"not uploaded: .*{kind}.* is whole"):
        hub.upload(CHECKPOINTS / "tiny-stella-zh-v2", NAME)
