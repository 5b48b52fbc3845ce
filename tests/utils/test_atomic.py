"""Files appear whole or not at all."""

import json

import pytest

from mamba_vision.utils.atomic import atomic_path, writable_folder, write_json, write_text


def test_replaces_only_at_the_end_and_keeps_the_suffixes(tmp_path):
    target = tmp_path / "new" / "mask.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_no_remains(tmp_path):
    target = write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass


def test_json_with_lists_of_numbers_on_one_line(tmp_path):
    value = {
        "spacing": [1.5, 2.0],
        "name": "Leber – µ [\n1, 2]",
        "rows": [[1, 2], [3, 4]],
        "names": ["a", "b"],
        "none": [],
    }
    text = write_json(tmp_path / "a.json", value).read_text(encoding="utf-8")
    assert json.loads(text) == value and '"spacing": [1.5, 2.0]' in text


def test_errors_name_the_target_and_what_is_in_its_place(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(NotADirectoryError, match=r"taken: found a file, expected a folder"):
        write_text(tmp_path / "taken" / "a.txt", "x")
    (tmp_path / "folder.txt" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"folder\.txt"):
        write_text(tmp_path / "folder.txt", "x")
    with pytest.raises(PermissionError) as error, atomic_path(tmp_path / "b.txt") as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))
    assert error.value.filename == str(tmp_path / "b.txt")


def test_a_folder_that_takes_no_files_is_told_before_the_work(tmp_path, monkeypatch):
    assert writable_folder(tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir())

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mamba_vision.utils.atomic.tempfile.TemporaryFile", full)
    with pytest.raises(OSError, match=r"new: no file can be written to this folder \(No space left on device\)"):
        writable_folder(tmp_path / "new")


def test_a_disk_that_gets_full_names_the_target(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: .*mask\.nii"), atomic_path(tmp_path / "mask.nii"):
        raise OSError(28, "No space left on device")
