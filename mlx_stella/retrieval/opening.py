"""Open an index: to be asked, or to be written to by this model and no other."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlx_stella import __version__
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.errors import StoreError
from mlx_stella.files import lock
from mlx_stella.machine.packages import require
from mlx_stella.retrieval.manifest import Stamp, check_model, check_settings, make_stamp
from mlx_stella.retrieval.store import Store

STAMP = "stamp"
"""The note that tells what made the vectors."""


def open_store(uri: str) -> Store:
    """The store of an address: qdrant+http://..., or LanceDB's: a folder or s3://...

    Raises:
        MissingExtraError: Qdrant's client is not installed.
        InputError, StoreError: there can be no index at this address.
    """
    if uri.startswith("qdrant") and "://" in uri:
        require("qdrant")
        from mlx_stella.retrieval.qdrant import QdrantStore

        return QdrantStore(uri)
    from mlx_stella.retrieval.lance import LanceStore

    return LanceStore(uri)


def read_stamp(store: Store) -> Stamp | None:
    """What made an index's vectors; None where there is no index yet."""
    note = store.read_note(STAMP)
    return None if note is None else Stamp.from_json(note, store.uri)


def open_index(uri: str) -> tuple[Store, Stamp]:
    """An index that exists.

    Raises:
        StoreError: there is none, or it cannot be used.
    """
    store = open_store(uri)
    stamp = read_stamp(store)
    if stamp is None:
        raise StoreError("no index", where=uri, remedy=f"mlx-stella index FOLDER --to {uri}")
    return store, stamp


@contextmanager
def open_for_writing(
    store: Store,
    encoder: Encoder,
    name: str,
    dim: int | None = None,
    chunk_tokens: int | None = None,
    overlap: int | None = None,
) -> Iterator[Stamp]:
    """Hold an index's lock; where it is new, stamp it.

    Args:
        name: what the encoder was loaded by.
        dim, chunk_tokens, overlap: None for what the index has, or the default for a new one.

    Raises:
        StoreError: somebody else is writing, or the index is of another model or other settings.
    """
    with lock.writing(store.uri):
        stamp = read_stamp(store)
        if stamp is not None:
            check_model(stamp, encoder, store.uri)
            dim = stamp.dim if dim is None else dim
            chunk_tokens = stamp.chunk_tokens if chunk_tokens is None else chunk_tokens
            overlap = stamp.overlap if overlap is None else overlap
        wanted = make_stamp(encoder, name, __version__, dim, chunk_tokens, overlap)
        if stamp is None:
            stamp = wanted
            store.write_note(STAMP, stamp.to_json())
        check_settings(stamp, wanted, store.uri)
        yield stamp
