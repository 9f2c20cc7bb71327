"""Files are written as a whole or not at all, through links, with their modes, and never in place of a device."""

import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from ddpm_jax.system.files import put_folder, read_json, whole_file, whole_folder, write_json


def test_an_exception_leaves_the_old_content_and_no_other_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), whole_file(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    for text in ("first", "second"):  # the link points nowhere at first
        with whole_file(tmp_path / "link") as part:
            part.write_text(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_text() == text


def test_the_mode_of_a_file_is_kept(tmp_path):
    target = tmp_path / "file"
    target.touch()
    target.chmod(0o600)
    with whole_file(target) as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600  # nobody else reads it while it is written either
        part.write_text("secret")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_pipe_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_json(tmp_path / "pipe", [1])
    reader.join()
    assert read == ["[\n  1\n]\n"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
def test_standard_output_is_written_through(tmp_path, redirected):
    script = (
        "import pathlib; from ddpm_jax.system.files import write_json; print('first', flush=True); "
        "write_json(pathlib.Path('/dev/stdout'), 'last')"
    )
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=out if redirected else subprocess.PIPE, text=True, check=True
        )
    assert (done.stdout or (tmp_path / "out").read_text()) == 'first\n"last"\n'
    assert not list(tmp_path.glob("*.part"))


def test_a_regular_file_in_memory_is_replaced():
    """/dev/shm holds files, not devices."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for number in (1, 2):
            write_json(Path(folder) / "a.json", number)
        assert read_json(Path(folder) / "a.json") == 2


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_two_writers_at_once_leave_the_content_of_one(tmp_path):
    with whole_file(tmp_path / "file") as one, whole_file(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(("name", "reason"), [(".", "is a folder"), ("absent/file", "there is no folder .*absent")])
def test_a_name_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, reason):
    with pytest.raises(ValueError, match=reason), whole_file(tmp_path / name):
        pytest.fail("the work was done")


def test_a_folder_replaces_another_as_a_whole(tmp_path):
    target = tmp_path / "folder"
    for name in ("a", "b"):
        with whole_folder(target) as part:
            (part / name).touch()
    with pytest.raises(RuntimeError), whole_folder(target) as part:
        (part / "c").touch()
        raise RuntimeError
    assert os.listdir(target) == ["b"] and os.listdir(tmp_path) == ["folder"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for name in ("a", "b"):
        with whole_folder(tmp_path / "link") as part:
            (part / name).touch()
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "real") == ["b"]
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_a_folder_that_was_filled_before_gets_its_name(tmp_path):
    (tmp_path / "part" / "below").mkdir(parents=True)
    (tmp_path / "part" / "below" / "file").touch()
    put_folder(tmp_path / "part", tmp_path / "folder")
    assert (tmp_path / "folder" / "below" / "file").exists() and os.listdir(tmp_path) == ["folder"]
