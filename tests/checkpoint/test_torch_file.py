"""pytorch_model.bin: what torch reads from it is read, and nothing else happens."""

import json
import shutil
import time
import warnings
import zipfile

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from support import CHECKPOINTS, TESTS, load_tiny
from support.torch_files import Call, Name, dumps, save, storage, tensor, write

from mlx_stella import StellaError, WeightsError, load
from mlx_stella.checkpoint.tensors import find_tensors
from mlx_stella.checkpoint.torch_file import read_tensors

GOLDEN = TESTS / "golden" / "torch"
TEXTS = ["What is Deep Learning?", "a"]
ZIP, LEGACY = ((GOLDEN / name).read_bytes() for name in ("zip.bin", "legacy.bin"))
ONE = {"a": tensor(storage("0", 6), (2, 3), (3, 1))}
SIX = {"0": bytes(24)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


def refused(path, pattern: str) -> None:
    start = time.process_time()
    with pytest.raises(WeightsError, match=pattern) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert "model.safetensors" in caught.value.remedy
    assert time.process_time() - start < 20


@pytest.mark.parametrize("name", ["zip.bin", "legacy.bin"])
def test_every_tensor_is_torchs_to_the_bit(name):
    expected = np.load(GOLDEN / "expected.npz")
    tensors = read_tensors(GOLDEN / name)
    assert set(tensors) == {name for name in expected if "/" not in name}
    for name, found in tensors.items():
        array = found.read()
        assert array.shape == found.shape == tuple(expected[f"{name}/shape"])
        assert str(array.dtype).rstrip("_") == str(expected[f"{name}/dtype"]).replace(
            "torch", "mlx.core"
        )
        content = b"" if array.size == 0 else bytes(memoryview(array))
        assert content == expected[name].tobytes()


def test_a_checkpoint_is_its_safetensors_to_the_bit():
    expected = load_file(CHECKPOINTS / "tiny-stella-zh-v2" / "model.safetensors")
    files = find_tensors(CHECKPOINTS / "tiny-stella-zh-v2-bin")
    arrays = files.load()
    assert set(expected) <= set(arrays) == set(files.tensors)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.array(arrays[name]), array)


@pytest.fixture
def pickled(tmp_path):
    """tiny-stella-zh-v2 as its siblings were published: pytorch_model.bin and no safetensors."""
    directory = tmp_path / "pickled"
    shutil.copytree(CHECKPOINTS / "tiny-stella-zh-v2", directory)
    (directory / "model.safetensors").unlink()
    shutil.copy(CHECKPOINTS / "tiny-stella-zh-v2-bin/pytorch_model.bin", directory)
    return directory


def test_a_model_loads_from_it(pickled):
    model, expected = load(pickled, dtype="float32"), load_tiny("tiny-stella-zh-v2")
    assert model.checkpoint.parameters == expected.checkpoint.parameters
    np.testing.assert_array_equal(model.encode(TEXTS), expected.encode(TEXTS))


def test_a_model_loads_from_shards(pickled):
    tensors = load_file(CHECKPOINTS / "tiny-stella-zh-v2" / "model.safetensors")
    (pickled / "pytorch_model.bin").unlink()
    shards: dict[str, dict] = {}
    for number, (name, array) in enumerate(tensors.items()):
        shards.setdefault(f"pytorch_model-0000{number % 3}-of-00003.bin", {})[name] = array
    for file, part in shards.items():
        save(pickled / file, part)
    weight_map = {name: file for file, part in shards.items() for name in part}
    index = pickled / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    expected = load_tiny("tiny-stella-zh-v2").encode(TEXTS)
    np.testing.assert_array_equal(load(pickled, dtype="float32").encode(TEXTS), expected)


def test_heads_load_from_it(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    for head in directory.glob("2_Dense_*"):
        save(head / "pytorch_model.bin", load_file(head / "model.safetensors"))
        (head / "model.safetensors").unlink()
    found = load(directory, dtype="float32").encode(TEXTS, dim=256)
    np.testing.assert_array_equal(found, load_tiny("tiny-stella-1.5b").encode(TEXTS, dim=256))


def test_one_tensor_at_a_time_is_held(path):
    save(path, {f"{n}.weight": np.ones((256, 1024), "<f4") for n in range(16)})
    arrays = find_tensors(path.parent).load()
    mx.synchronize()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for name in list(arrays):
        assert arrays[name].sum().item() == 2**18
    assert mx.get_peak_memory() - before < 3 * 2**20


@pytest.mark.parametrize(
    "module, name",
    [
        ("posix", "system"),
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "DoubleStorage"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("collections", "Counter"),
        ("_codecs", "encode"),
    ],
)
def test_what_no_table_of_tensors_needs_is_refused_by_name(path, module, name):
    write(path, dumps({**ONE, "b": Call(Name(module, name), ("touch here",))}), SIX)
    refused(path, f"asks for '{module}.{name}', which is refused")


def test_a_name_steers_no_terminal(path):
    write(path, dumps(Name("\x1b[2Jé", "x" * 150)), {})
    refused(path, r"asks for '\\x1b\[2Jé\.x+', which is refused")


VALUES = {
    "a tensor behind its storage": (
        {"a": tensor(storage("0", 6), (2, 3), (3, 1), 1)},
        "not within",
    ),
    "a stride beyond": ({"a": tensor(storage("0", 6), (2, 3), (4, 1))}, "not within"),
    "a number that fills memory": ({"a": tensor(storage("0", 6), (2**40,), (0,))}, "not within"),
    "a negative offset": ({"a": tensor(storage("0", 6), (2,), (1,), -1)}, "otherwise than torch"),
    "a negative stride": ({"a": tensor(storage("0", 6), (2,), (-1,))}, "otherwise than torch"),
    "a negative size": ({"a": tensor(storage("0", 6), (-2,), (1,))}, "otherwise than torch"),
    "two ranks": ({"a": tensor(storage("0", 6), (2, 3), (1,))}, "otherwise than torch"),
    "many axes": ({"a": tensor(storage("0", 6), (1,) * 9, (1,) * 9)}, "otherwise than torch"),
    "a tensor of no storage": ({"a": tensor("0", (2,), (1,))}, "otherwise than torch"),
    "a storage that is not there": ({"a\nb": tensor(storage("1", 6), (2,), (1,))}, "not there"),
    "a storage elsewhere": ({"a": tensor(storage("../../0", 6), (2,), (1,))}, "not there"),
    "a larger storage": ({"a": tensor(storage("0", 7), (7,), (1,))}, "of another size"),
    "a smaller storage": ({"a": tensor(storage("0", 5), (5,), (1,))}, "of another size"),
    "two sizes": ({**ONE, "b": tensor(storage("0", 12, "HalfStorage"), (9,), (1,))}, None),
    "no tensor": ({**ONE, "epoch": 3}, "other things than tensors"),
    "no table": ((), "other things than tensors"),
    "a table in a table": ({"state_dict": ONE}, "other things than tensors"),
    "a key that is no text": ({((),): ONE["a"]}, "a key that is no text"),
    "a storage that is called": (Call(Name("torch", "FloatStorage"), ()), "calls what is no"),
    "a text that is called": (b"U\x01aR", "opcode b'U'"),
    "flags that change numbers": (
        Call(
            Name("torch._utils", "_rebuild_tensor_v2"),
            (storage("0", 6), 0, (6,), (1,), False, {}, {"conj": True}),
        ),
        "otherwise than torch",
    ),
    "hooks": (
        Call(Name("torch._utils", "_rebuild_parameter"), (ONE["a"], True, {"a": 1})),
        "otherwise than torch",
    ),
    "many views of the same": (
        {str(n): tensor(storage("0", 6), (6,), (1,)) for n in range(999)}
        | {"x" * 9: tensor(storage("0", 6), (6,), (1,))},
        None,
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_does_not_fit(path, name):
    value, pattern = VALUES[name]
    write(path, dumps(value), SIX)
    if pattern is None:  # less than the file that says so
        assert len(read_tensors(path)) > 1
    else:
        refused(path, pattern)


def test_a_small_file_that_stands_for_a_large_model(path):
    shared = storage("0", 2**18)
    write(
        path,
        dumps({str(n): tensor(shared, (2**18,), (1,)) for n in range(9)}),
        {"0": bytes(2**20)},
    )
    refused(path, "its tensors have 9,437,184 bytes together, the file 1,0")


PICKLES = {
    "a long text": (b"\x80\x02X\xff\xff\xff\xff.", "ends too early"),
    "a long number": (b"\x80\x02\x8a\xff" + b"\1" * 20 + b".", "ends too early"),
    "a very long number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "opcode"),
    "a place far off": (b"\x80\x02}r\xff\xff\xff\xff\x85.", "other things than tensors"),
    "what was never kept": (b"\x80\x02j\xff\xff\xff\xff.", "not there"),
    "an empty stack": (b"\x80\x02\x85.", "not there"),
    "no mark": (b"\x80\x02t.", "not there"),
    "nothing": (b"", "ends too early"),
    "no end": (b"\x80\x02}", "ends too early"),
    "a name without end": (b"\x80\x02c" + b"a" * 10**6, "name without end"),
    "marks": (b"\x80\x02" + b"(" * 10**5 + b".", "not there"),
    "a deep tuple": (b"\x80\x02)" + b"\x85" * 10**5 + b".", "other things than tensors"),
    "a tuple of 2^1000": (b"\x80\x02)" + b"q\0h\0\x86" * 1000 + b".", "other things than tensors"),
    "its hash": (b"\x80\x02})" + b"q\0h\0\x86" * 1000 + b"Ns.", "a key that is no text"),
    "itself": (b"\x80\x02}q\0X\1\0\0\0ah\0s.", "other things than tensors"),
    "another version": (b"\x80\x04N.", "version 4"),
    "too long": (b"\x80\x02X\0\0\x20\0" + b"N" * 2**21 + b".", "more than 2,097,152 bytes"),
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickle_that_would_fill_memory_or_never_end(path, name, form):
    pickle, pattern = PICKLES[name]
    if form == "zip":
        write(path, pickle, SIX)
    else:
        start = LEGACY.index(b"X\x10\0\0\0protocol_version") - len(b"\x80\2}q\0(")
        path.write_bytes(LEGACY[:start] + pickle)
        pattern = pattern.replace("other things than tensors", "not little-endian")
        pattern = pattern.replace("more than 2,097,152 bytes", "ends too early")
    refused(path, pattern)


def edit_archive(path, change) -> None:
    """Write the golden archive anew, each member (its description, its content) changed."""
    with zipfile.ZipFile(GOLDEN / "zip.bin") as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            for changed, content in change(member, old.read(member)):
                new.writestr(changed, content)


def test_a_compressed_archive(path):
    def deflate(member, content):
        member.compress_type = zipfile.ZIP_DEFLATED
        yield member, content

    edit_archive(path, deflate)
    refused(path, "compressed or encrypted")


def test_an_archive_with_sizes_and_places_of_64_bits(path, monkeypatch):
    """As those beyond 4 GiB have them."""
    with monkeypatch.context() as context:
        context.setattr(zipfile, "ZIP64_LIMIT", 0)
        context.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
        save(path, {"a": np.arange(6, dtype="<f4")})
    assert b"PK\x06\x06" in path.read_bytes()
    assert read_tensors(path)["a"].read().tolist() == list(range(6))


def test_an_archive_of_the_other_byte_order(path):
    write(path, dumps(ONE), SIX, byteorder=b"big")
    refused(path, "not little-endian")


def test_an_archive_without_or_with_two_pickles(path):
    edit_archive(path, lambda m, content: [] if "data.pkl" in m.filename else [(m, content)])
    refused(path, "torch.save did not write")
    edit_archive(path, lambda m, c: [(m, c), (m.filename.replace("zip/", "b/"), c)])
    refused(path, "torch.save did not write")


def test_members_that_overlap_or_lie(path):
    """The directory's entries are 46 bytes and a name; the place of a member is their last four."""
    start = ZIP.index(b"PK\x01\x02")
    entries = [i for i in range(start, len(ZIP)) if ZIP.startswith(b"PK\x01\x02", i)]
    places = [ZIP[entry + 42 : entry + 46] for entry in entries]
    changed = bytearray(ZIP)
    changed[entries[3] + 42 : entries[3] + 46] = places[2]
    path.write_bytes(changed)
    refused(path, "overlap")
    changed[entries[3] + 42 : entries[3] + 46] = (int.from_bytes(places[3], "little") + 1).to_bytes(
        4, "little"
    )
    path.write_bytes(changed)
    refused(path, "not where its directory says")
    changed = bytearray(ZIP)
    for field in (20, 24):
        changed[entries[-1] + field : entries[-1] + field + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(changed)
    refused(path, "not where its directory says")


def test_an_archive_of_very_many_members(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(10_000):
            archive.writestr(f"{number:0200}", b"")
    refused(path, "more than 2,097,152 bytes")


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"PK\x03\x04" + b"\0" * 99, b"<html>" * 99])
def test_another_file(path, content):
    path.write_bytes(content)
    refused(path, "not a table of tensors")


def damaged(data: bytes):
    place = st.integers(0, len(data) - 1)
    edit = st.tuples(place, st.integers(0, 9), st.binary(max_size=9))
    return st.lists(edit, min_size=1, max_size=3).map(lambda edits: _damage(data, edits))


def _damage(data: bytes, edits) -> bytes:
    for start, length, new in edits:
        data = data[:start] + new + data[start + length :]
    return data


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(ZIP[:-1])
@example(LEGACY[:-1])
@given(damaged(ZIP) | damaged(LEGACY))
def test_a_damaged_file_is_read_or_refused(path, data):
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            for found in read_tensors(path).values():
                assert found.read().shape == found.shape
        except StellaError as error:
            assert "\n" not in str(error)
