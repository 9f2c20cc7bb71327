"""The files in folders and zips: links, hidden files, and entries of a zip that cannot be read."""

import os
import zipfile
from pathlib import Path

import pytest

from ddpm_jax.data.files import find, read


def names(root: Path) -> list[str]:
    return [file.name for file in find(root).files]


def make(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(os.fsencode(path))
    return root


def archive(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return path


def patched(path: Path, offset_in_local: int, offset_in_directory: int, content: bytes) -> Path:
    """The zip with a field changed in all its entries, in both of their headers."""
    whole = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", offset_in_local), (b"PK\1\2", offset_in_directory)):
        position = whole.find(signature)
        while position >= 0:
            whole[position + offset : position + offset + len(content)] = content
            position = whole.find(signature, position + 1)
    path.write_bytes(whole)
    return path


def test_every_picture_is_found_once_however_folders_are_linked(tmp_path):
    root = make(tmp_path / "root", "b/1.png", "b/deep/2.JPG")
    outside = make(tmp_path / "outside", "3.gif", "more/4.jfif")
    for link, target in {
        "a": root / "b",
        "out": outside,
        "out_again": outside / "more",
        "self": root,
        "b/up": root / "b",
    }.items():
        (root / link).symlink_to(target, target_is_directory=True)
    (outside / "back").symlink_to(root, target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    found = find(root)
    assert [file.name for file in found.files] == ["b/1.png", "b/deep/2.JPG", "out/3.gif", "out/more/4.jfif"]
    assert found.left_out == {"repeated link": 5, "broken link": 1}


def test_files_are_counted_by_their_kind(tmp_path):
    root = make(tmp_path / "root", "1.png", "a.txt", "b/c.TXT", "LICENSE", ".DS_Store", ".git/x.png", "x.eps", "v.mpg")
    os.mkfifo(root / "pipe.png")
    found = find(root)
    assert [file.name for file in found.files] == ["1.png"]
    kinds = {".txt": 2, "without ending": 1, "hidden": 2, ".eps": 1, ".mpg": 1, "special file": 1}
    assert found.left_out == kinds


def test_names_need_not_be_text(tmp_path):
    root = make(tmp_path / "root", os.fsdecode(b"\xff.png"))
    (file,) = find(root).files
    assert read(root, file) == b"\xff.png"


def test_a_zip_holds_what_the_same_folder_holds(tmp_path):
    paths = ["1.png", "a/2.png", "a/3.txt", ".hidden/4.png", ".hidden/5.png", "__MACOSX/a/._2.png"]
    root = make(tmp_path / "root", *paths)
    zipped = archive(tmp_path / "root.zip", {path: path.encode() for path in ["x.png/", *paths]})
    assert names(root) == names(zipped) == ["1.png", "a/2.png"]
    assert find(root).left_out == find(zipped).left_out == {".txt": 1, "hidden": 2}
    assert [read(zipped, file) for file in find(zipped).files] == [b"1.png", b"a/2.png"]


def test_no_name_in_a_zip_leads_out_of_it(tmp_path):
    make(tmp_path, "secret.png")
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    zipped = archive(tmp_path / "root.zip", {"../secret.png": b"", "a/../../secret.png": b"", "1.png": b"mine"})
    with zipfile.ZipFile(zipped, "a") as made:
        made.writestr(link, "secret.png")
        made.writestr(str(tmp_path / "secret.png"), "not the secret")
    contents = [read(zipped, file) for file in find(zipped).files]
    assert sorted(contents) == [b"mine", b"not the secret"] and find(zipped).left_out["link in a zip"] == 1


@pytest.mark.parametrize(
    "where, field, problem",
    [
        (
            (8, 10),
            b"\x09\0",
            "is compressed by Deflate64, which Python cannot read: unpack the zip and give the folder",
        ),
        ((8, 10), b"\x62\0", "is compressed by method 98, which Python cannot read: unpack the zip and give"),
        ((6, 8), b"\1\0", "is encrypted: unpack the zip and give the folder"),
    ],
)
def test_an_entry_that_cannot_be_read_has_the_way_out(tmp_path, where, field, problem):
    zipped = patched(archive(tmp_path / "root.zip", {"1.png": b"1" * 99}, zipfile.ZIP_DEFLATED), *where, field)
    (file,) = find(zipped).files
    assert file.problem.startswith(problem)
    with pytest.raises(ValueError, match=problem):
        read(zipped, file)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    zipped = archive(tmp_path / "root.zip", {"1.png": bytes(2**25)}, zipfile.ZIP_DEFLATED)
    assert zipped.stat().st_size < 2**16
    (file,) = find(zipped).files
    assert file.problem.startswith("expands 1,0") and "zip bomb" in file.problem


def test_an_entry_that_understates_its_size_is_not_read_beyond_it(tmp_path):
    zipped = archive(tmp_path / "root.zip", {"1.png": bytes(2**20)}, zipfile.ZIP_DEFLATED)
    patched(zipped, 22, 24, (100).to_bytes(4, "little"))
    (file,) = find(zipped).files
    with pytest.raises(ValueError, match="cannot be read"):
        read(zipped, file)


def test_a_file_that_is_too_large_is_named_before_it_is_read(tmp_path):
    root = make(tmp_path / "root", "1.png")
    with (root / "2.png").open("wb") as file:
        file.truncate(2**31)  # a sparse file
    assert [file.problem for file in find(root).files] == ["", find(root).files[1].problem]
    assert find(root).files[1].problem.startswith("has 2.0 GiB, more than the 1 GiB that are read")


def test_what_is_neither_a_folder_nor_a_zip_is_refused(tmp_path):
    make(tmp_path, "file.zip")
    for path in ("file.zip", "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"is neither a folder nor a zip: give one with images\Z"):
            find(tmp_path / path)


def test_a_zip_that_lost_its_beginning_is_damaged(tmp_path):
    cut = archive(tmp_path / "cut.zip", {"1.png": b"1" * 99})
    cut.write_bytes(cut.read_bytes()[60:])
    with pytest.raises(ValueError, match="cannot be read"):
        read(cut, find(cut).files[0])


def test_a_zip_that_was_replaced_is_opened_anew(tmp_path):
    path = archive(tmp_path / "root.zip", {"1.png": b"1"})
    assert names(path) == ["1.png"]
    archive(path, {"2.png": b"22", "3.png": b"333"})
    assert names(path) == ["2.png", "3.png"]
