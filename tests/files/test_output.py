"""A file that a user names is replaced only where they say so; its mode stays."""

import stat

import pytest

from mlx_stella import InputError
from mlx_stella.files import output


def write(path, text=b"new", overwrite=False):
    with output.writing(path, overwrite=overwrite) as (file,):
        file.write(text)


def test_a_file_that_is_there(tmp_path):
    path = tmp_path / "a"
    write(path)
    with pytest.raises(InputError, match="a: exists; remedy: another name, or --overwrite"):
        write(path, b"newer")
    assert path.read_bytes() == b"new"
    write(path, b"newer", overwrite=True)
    assert path.read_bytes() == b"newer"


def test_its_mode_is_kept(tmp_path):
    path = tmp_path / "a"
    path.touch()
    path.chmod(0o640)
    write(path, overwrite=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "read-only").write_text("mine")
    (tmp_path / "read-only").chmod(0o444)
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("read-only", "link", "broken", "folder", "none/a", "n" * 300):
        with pytest.raises(InputError, match="; remedy: "):
            write(tmp_path / name, overwrite=overwrite)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "elsewhere").read_text() == (tmp_path / "read-only").read_text() == "mine"


def test_a_file_that_came_while_another_was_written(tmp_path):
    with (
        pytest.raises(InputError, match="b: exists"),
        output.writing(tmp_path / "a", tmp_path / "b", overwrite=False),
    ):
        (tmp_path / "b").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
