"""Which folders and files an index was made of: noted, so that they can be looked at again."""

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlx_stella.errors import InputError, StellaWarning
from mlx_stella.retrieval.notes import SOURCES, Source, read_sources
from mlx_stella.retrieval.scanning import (
    Patience,
    Scan,
    as_spelled,
    is_below,
    path_of,
    scan,
    text_of,
)
from mlx_stella.retrieval.store import Store


def scan_sources(
    store: Store, paths: Sequence[Path], globs: Sequence[str] = (), exclude: Path | None = None
) -> Scan:
    """As :func:`files.scan`, but a path that the index knows may have been deleted.

    It counts as deleted only if the folder that it lay in is there: what lies on a disk that is
    not mounted keeps its rows.

    Raises:
        InputError: a path does not exist, or folders overlap, here or with those of the index.
    """
    sources = read_sources(store)
    there: list[Path] = []
    gone: dict[str, set[str] | None] = {}
    for path in paths:
        real = as_spelled(Path(os.path.realpath(path)))
        root, parent, name = text_of(real), text_of(real.parent), text_of(real.name)
        if real.exists() or not real.parent.is_dir():
            there.append(path)
        elif root in sources:
            gone[root] = None
        elif parent in sources and name in (sources[parent]["names"] or [name]):
            gone[parent] = {*(gone.get(parent) or ()), name}
        else:
            there.append(path)
    found = scan(there, globs, exclude)
    for root in sources:  # noted before spellings were looked at, or respelled since
        spelled = text_of(as_spelled(path_of(root)))
        if spelled != root and not globs and found.scopes.get(spelled, ()) is None:
            gone[root] = None
    found.gone = gone
    for root in found.scopes:
        for other, source in sources.items():
            if root != other and source["names"] is None and is_below(root, other):
                raise InputError(
                    f"lies in {other}, which the index holds",
                    where=root,
                    remedy="index that folder",
                )
            if _takes_over(found, root, other) and globs:
                raise InputError(
                    f"holds {other}, which the index has by itself", where=root, remedy="no --glob"
                )
    return found


def check_found(found: Scan, paths: Sequence[str | os.PathLike[str]], is_new: bool) -> None:
    """Say that there is nothing, rather than make an index of nothing.

    Raises:
        InputError: a new index would be of nothing.
    """
    if found.files or found.skipped or found.failed:
        return
    matching = f" that matches --glob {' or '.join(found.globs)}" if found.globs else ""
    if is_new:
        where = ", ".join(map(str, paths))
        raise InputError(f"no file{matching}", where=where, remedy="name others")
    if found.globs:
        warnings.warn(f"there is no file{matching}", StellaWarning, stacklevel=3)


def remember_sources(store: Store, found: Scan, fields: list[str]) -> None:
    """Note what is being indexed; of a root that is known, what it adds to that."""
    sources = read_sources(store)
    for root, names in found.scopes.items():
        old = sources.get(root, {"names": [], "globs": found.globs})
        both = None if names is None or old["names"] is None else sorted({*old["names"], *names})
        sources[root] = {
            "names": both,
            "globs": sorted({*old["globs"], *found.globs}) if old["globs"] and found.globs else [],
            "fields": fields,
        }
    store.write_note(SOURCES, sources)


def forget_sources(store: Store, found: Scan) -> None:
    """Drop what is gone, and folders that are now indexed with the one they lie in."""
    sources = read_sources(store)
    for root, names in found.gone.items():
        if names is None:
            del sources[root]
        elif (known := sources[root]["names"]) is not None:
            sources[root]["names"] = sorted({*known} - names)
    kept = {
        other: source
        for other, source in sources.items()
        if not any(_takes_over(found, root, other) for root in found.scopes)
    }
    if found.gone or kept.keys() != sources.keys():
        store.write_note(SOURCES, kept)


def tell_of_lost_folders(store: Store) -> None:
    """Their chunks still answer: only who names them can mean that they are gone for good."""
    for root in read_sources(store):
        if not path_of(root).is_dir():
            warnings.warn(
                f"{root} is gone, and its chunks still answer; remedy: name it once more, which "
                "takes them out",
                StellaWarning,
                stacklevel=3,
            )


def key_of(store: Store, path: str) -> tuple[str | None, str]:
    """Root and name of a file by its whole path; of any other name the name, below any root."""
    roots = [root for root in read_sources(store) if is_below(path, root)]
    if not path.startswith("/") or not roots:
        return None, path
    root = max(roots, key=len)
    return root, path[len(root.rstrip("/")) + 1 :]


def look_again(store: Store) -> Iterator[tuple[str, Scan | InputError, list[str]]]:
    """Each root that was indexed, what is there now or why that is not known, and its fields.

    An index that came from elsewhere may name any folder, such as "/": all of them together are
    looked at for as long as a :class:`Patience` lasts.
    """
    exclude = None if "://" in store.uri else Path(os.path.abspath(store.uri))
    patience = Patience()
    for root, source in read_sources(store).items():
        found: Scan | InputError
        try:
            found = scan(_paths(root, source), source["globs"], exclude, patience)
        except InputError as error:
            found = error
        yield root, found, source["fields"]


def _paths(root: str, source: Source) -> list[Path]:
    """What to look at of a root: the folder, or those of the files asked for that are there."""
    try:
        here = path_of(root)
        if not stat.S_ISDIR(here.stat().st_mode):
            raise NotADirectoryError
        names = source["names"]
        return [here] if names is None else [p for n in names if (p := here / path_of(n)).exists()]
    except (FileNotFoundError, NotADirectoryError):
        remedy = "name it to `index`, which takes its files out"
        raise InputError("the folder is gone", remedy=remedy) from None
    except OSError as error:
        raise InputError(error.strerror or str(error), remedy="see to it") from None
    except ValueError:
        raise InputError("no name of a folder", remedy="make the index anew") from None


def _takes_over(found: Scan, root: str, other: str) -> bool:
    return root != other and found.scopes[root] is None and is_below(other, root)
