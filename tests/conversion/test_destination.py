"""Nothing of the user's is ever removed, whatever the output of a conversion is called."""

import json
import shutil
from pathlib import Path

import pytest
from support import CHECKPOINTS

from mlx_stella import CheckpointError, InputError, load
from mlx_stella.checkpoint import hub
from mlx_stella.checkpoint.origin import fingerprint
from mlx_stella.conversion import destination
from mlx_stella.conversion.card import licence
from mlx_stella.conversion.convert import Conversion, Request, Texts

SOURCE = CHECKPOINTS / "tiny-stella-1.5b"


def convert(target: Path, source: Path = SOURCE, overwrite: bool = False) -> dict:
    conversion = Conversion(hub.resolve(source), Request("float16"))
    return conversion.run(target, Texts(["a", "b"], "two"), overwrite, lambda *_: None)[0]


def everything(folder: Path) -> dict[str, bytes | None]:
    """Names and contents, also of what is hidden."""
    paths = sorted(folder.rglob("*"))
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in paths
    }


def photos(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "photo.jpg").write_text("of a holiday")


def refused(pattern: str, target: Path, **options) -> None:
    """The conversion is refused and leaves all as it is."""
    before = everything(target.parent)
    with pytest.raises(InputError, match=pattern):
        convert(target, **options)
    assert everything(target.parent) == before


def test_the_record_lists_what_was_written(tmp_path):
    facts = convert(tmp_path / "out")
    there = everything(tmp_path / "out")
    assert facts["files"] == [name for name, content in there.items() if content is not None]
    both = sum(len(there[name]) for name in ("README.md", "conversion.json"))
    assert facts["size_bytes"] == sum(len(content or "") for content in there.values()) - both


@pytest.mark.parametrize("place", [".", "holiday", "2_Dense_256"])
def test_files_beside_those_of_a_conversion(tmp_path, place):
    convert(tmp_path / "out")
    photos(tmp_path / "out" / place)
    name = {"holiday": "holiday, and 1 more"}.get(place, (Path(place) / "photo.jpg").as_posix())
    refused(f"holds {name},", tmp_path / "out", overwrite=True)


def test_an_output_whose_record_lists_nothing(tmp_path):
    """As it was written before files were listed, or by others."""
    convert(tmp_path / "out")
    proof = tmp_path / "out" / destination.PROOF
    for listed in (None, "config.json", [1, {}]):
        proof.write_text(json.dumps(json.loads(proof.read_text()) | {"files": listed}))
        refused(
            "holds 1_Pooling, and .* more, which conversion.json", tmp_path / "out", overwrite=True
        )


def test_files_that_come_while_it_converts(tmp_path):
    convert(tmp_path / "out")
    conversion = Conversion(hub.resolve(SOURCE), Request("float16"))
    with pytest.raises(InputError, match=r"holds photo\.jpg, which"):
        conversion.run(
            tmp_path / "out",
            Texts(["a", "b"], "two"),
            True,
            lambda *_: photos(tmp_path / "out"),
        )
    assert (tmp_path / "out/photo.jpg").exists() and load(tmp_path / "out").dims
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_record_that_names_files_elsewhere_removes_none(tmp_path):
    convert(tmp_path / "out")
    photos(tmp_path)
    proof = tmp_path / "out" / destination.PROOF
    facts = json.loads(proof.read_text())
    proof.write_text(json.dumps(facts | {"files": [*facts["files"], "../photo.jpg"]}))
    convert(tmp_path / "out", overwrite=True)
    assert (tmp_path / "photo.jpg").exists()


def test_a_folder_that_became_a_link_is_not_followed(tmp_path):
    convert(tmp_path / "out")
    shutil.move(tmp_path / "out/1_Pooling", tmp_path / "mine")
    (tmp_path / "out/1_Pooling").symlink_to("../mine")
    convert(tmp_path / "out", overwrite=True)
    assert (tmp_path / "mine/config.json").exists()


def test_a_file_named_as_the_marker(tmp_path):
    photos(tmp_path / "out")
    (tmp_path / "out/UNFINISHED").write_text("a poem")
    refused("exists; remedy: another name", tmp_path / "out")
    refused("holds no conversion", tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("marker", [None, "", "a poem", '{"token": "a"'])
def test_a_folder_named_as_what_a_conversion_leaves(tmp_path, marker):
    photos(tmp_path / ".out.unfinished")
    photos(tmp_path / ".out.replaced")
    if marker is not None:
        (tmp_path / ".out.unfinished/UNFINISHED").write_text(marker)
    refused(r"\.out\.unfinished: was not left by a conversion; remedy: move", tmp_path / "out")


def test_a_link_or_a_file_named_as_what_a_conversion_leaves(tmp_path):
    photos(tmp_path / "mine")
    (tmp_path / ".out.unfinished").symlink_to("mine")
    refused("was not left by a conversion", tmp_path / "out")
    (tmp_path / ".b.unfinished").write_text("")
    refused("was not left by a conversion", tmp_path / "b")


def test_an_output_that_is_a_link(tmp_path):
    convert(tmp_path / "out")
    for name, to in {"link": "out", "nowhere": "none"}.items():
        (tmp_path / name).symlink_to(to)
        refused("is a link; remedy: name the folder it points to", tmp_path / name, overwrite=True)


def test_the_source_and_what_is_part_of_it(tmp_path):
    source = Path(shutil.copytree(SOURCE, tmp_path / "source"))
    (tmp_path / "link").symlink_to("source")
    for place in ("source/2_Dense_256", "source/new", "link/new"):
        refused("lies in the source", tmp_path / place, source=source, overwrite=True)
    convert(tmp_path / "half", source)
    refused("holds the source itself", tmp_path / "half", source=tmp_path / "half", overwrite=True)
    (tmp_path / "half/2_Dense_256/conversion.json").write_text("{}")
    refused("lies in", tmp_path / "half/2_Dense_256", source=tmp_path / "half", overwrite=True)


STEPS = ["rename", "second rename", "removal", "last removal"]


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "interrupted"])
def test_stopped_while_the_new_takes_the_place_of_the_old(tmp_path, monkeypatch, step, is_killed):
    """Either the old one or the new one is whole, and the next run ends as if nothing had been."""
    convert(tmp_path / "out")
    steps = [(Path, "rename"), (Path, "rename"), (destination, "_remove"), (Path, "unlink")]
    place, name = steps[step]
    original, calls = getattr(place, name), []
    putting = destination._put_in_place

    def stop(*arguments):
        calls.append(arguments)
        if name == "unlink" and arguments[0].name != hub.UNFINISHED:
            return original(*arguments)
        if name == "rename" and len(calls) == 1 and step == 1:
            return original(*arguments)
        if is_killed:
            monkeypatch.setattr(destination, "_clear", lambda *_: None)
            monkeypatch.setattr(destination, "_token", lambda _: None)
        monkeypatch.setattr(place, name, original)
        raise KeyboardInterrupt

    def begin(*arguments):
        monkeypatch.setattr(place, name, stop)
        putting(*arguments)

    monkeypatch.setattr(destination, "_put_in_place", begin)
    with pytest.raises(KeyboardInterrupt) as stopped:
        convert(tmp_path / "out", overwrite=True)
    assert stopped.value.__notes__ == [
        f"{tmp_path / 'out'} is as it was before, or whole; run it again"
    ]
    monkeypatch.undo()
    assert calls
    if not is_killed and step < 2:
        assert load(tmp_path / "out").dims and len(list(tmp_path.iterdir())) == 1
    convert(tmp_path / "out", overwrite=step < 2)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not any(name.startswith(".") for name in everything(tmp_path / "out"))
    assert load(tmp_path / "out").encode("a").shape == (1024,)


def test_only_known_files_travel(tmp_path):
    source = Path(shutil.copytree(SOURCE, tmp_path / "source"))
    for name in ("notes.txt", "keys.json", "run.py", "1_Pooling/keys.json", "2024_trip/a.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    for name in ("merges.txt", "modeling_qwen.py", "LICENSE"):
        (source / name).write_text("{}")
    files = convert(tmp_path / "out", source)["files"]
    assert {"merges.txt", "modeling_qwen.py", "LICENSE", "1_Pooling/config.json"} < set(files)
    assert not [name for name in files if "keys" in name or "trip" in name or "notes" in name]
    assert "run.py" not in files and not (tmp_path / "out/2024_trip").exists()


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "2_Dense_256/config.json"])
def test_a_link_that_leaves_the_checkpoint_is_not_followed(tmp_path, name):
    source = Path(shutil.copytree(SOURCE, tmp_path / "source"))
    content = (source / name).read_bytes() if (source / name).exists() else b"secret"
    (tmp_path / "elsewhere").write_bytes(content)
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{name}: links to a file outside .*; remedy: put"):
        convert(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_a_link_within_the_checkpoint_and_in_the_hubs_cache(tmp_path):
    snapshot = tmp_path / "models--a--b/snapshots/c0ffee"
    shutil.copytree(SOURCE, snapshot)
    (snapshot.parent.parent / "blobs").mkdir()
    (snapshot / "tokenizer.json").rename(snapshot.parent.parent / "blobs/1")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/1")
    (snapshot / "LICENSE").symlink_to("1_Pooling/config.json")
    facts = convert(tmp_path / "out", snapshot)
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert facts["origin"] == {
        "model": "a/b", "revision": "c0ffee", "fingerprint": fingerprint(snapshot)
    }  # fmt: skip


def test_the_origin_of_a_folder_tells_no_path(tmp_path):
    facts = convert(tmp_path / "out")
    assert facts["origin"] == {
        "model": SOURCE.name, "revision": "", "fingerprint": fingerprint(SOURCE)
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(facts)


def test_a_conversion_of_the_version_before_is_still_known(tmp_path):
    """Its record has neither files nor origin."""
    source = Path(shutil.copytree(CHECKPOINTS / "tiny-nv-embed", tmp_path / "NV-Embed-v2"))
    convert(tmp_path / "out", source)
    proof = tmp_path / "out" / destination.PROOF
    facts = json.loads(proof.read_text())
    del facts["files"], facts["origin"]
    proof.write_text(json.dumps(facts))
    found = hub.resolve(str(tmp_path / "out"))
    assert found.repo == "nvidia/NV-Embed-v2" and licence(found) == "CC-BY-NC-4.0"
    again = convert(tmp_path / "again", tmp_path / "out")
    assert again["licence"] == "CC-BY-NC-4.0" and again["source"] == "nvidia/NV-Embed-v2"
