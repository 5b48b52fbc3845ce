"""The journal of a run over many files."""

from pathlib import Path

import pytest

from mamba_vision.apis.picture_jobs import Journal


@pytest.mark.parametrize("name", ["a\u2028b.png", "caf\udce9.png"])
def test_a_journal_knows_files_with_odd_names(tmp_path: Path, name: str) -> None:
    """Line separators of Unicode, and bytes that are no UTF-8, which file names may hold."""
    source = tmp_path / name
    source.write_bytes(b"pixels")
    Journal(tmp_path / "finished.jsonl", {"topk": 1}).note([source], [source], label="cat")
    again = Journal(tmp_path / "finished.jsonl", {"topk": 1})
    assert again.finished([source], [source]) == {"label": "cat"}
    assert Journal(tmp_path / "finished.jsonl", {"topk": 2}).finished([source], [source]) is None
