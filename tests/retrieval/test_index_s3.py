"""An index in a bucket, as a user types it; needs ``pip install 'moto[server]'``."""

import json
import urllib.request

import pytest
from support.commands import TEXTS, fail, succeed, write

server = pytest.importorskip("moto.server", reason="needs moto[server], a bucket to test with")


@pytest.fixture
def bucket(monkeypatch):
    """The name of an empty bucket of a server on this machine."""
    service = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    endpoint = "http://{}:{}".format(*service.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/notes", method="PUT")).close()
    settings = {
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield "s3://notes"
    service.stop()


def test_all_verbs(bucket, tmp_path):
    index = f"{bucket}/idx"
    write(tmp_path / "notes", TEXTS)
    succeed("index", "notes", "--to", index, cwd=tmp_path)
    (tmp_path / "notes" / "b.md").write_text("black tea")
    (tmp_path / "notes" / "sub" / "c.py").unlink()
    succeed("index", "notes", "--to", index, cwd=tmp_path)
    for option in ("--exact", "--hybrid"):
        found = json.loads(succeed("search", index, "black tea", option, "--json", cwd=tmp_path))
        assert {hit["file"] for hit in found} == {"a.md", "b.md"}
        assert "black tea" in {hit["text"] for hit in found}
    standing = json.loads(succeed("status", index, "--json", cwd=tmp_path))
    assert standing["done"] == standing["chunks"] == 2
    succeed("export", index, "--output", "vectors.parquet", cwd=tmp_path)
    assert (tmp_path / "vectors.parquet").is_file()
    assert "no index; remedy" in fail("search", f"{bucket}/other", "tea", cwd=tmp_path)
