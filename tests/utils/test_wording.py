"""What tools print can be read, and typed."""

from pathlib import Path

from mamba_vision.utils.wording import command, count, shown


def test_numbers_carry_their_noun() -> None:
    assert [count(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_paths_are_short_where_one_stands(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "work" / "config.py") == "work/config.py"
    assert shown(tmp_path.parent / "other") == str(tmp_path.parent / "other")
    assert shown("work/config.py") == "work/config.py"


def test_a_command_can_be_typed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("tools/train.py", Path("my work/config.py"), "--amp") == (
        "python tools/train.py 'my work/config.py' --amp"
    )
