"""An address of each kind of store."""

import pytest


@pytest.fixture(params=["lance", "qdrant"])
def uri(request, tmp_path, monkeypatch) -> str:
    """The address of an index to be: a folder, or a collection of Qdrant in its local mode."""
    if request.param == "lance":
        return str(tmp_path / "idx")
    qdrant = pytest.importorskip("mlx_stella.retrieval.qdrant", reason="needs qdrant-client")
    client = qdrant.QdrantClient(":memory:")
    monkeypatch.setattr(qdrant, "connect", lambda url: client)
    return "qdrant+http://localhost:6333/idx"
