"""Tools end with a sentence and an exit status, whatever happens that a user can mend."""

import pytest

from mamba_vision.utils.tool_exit import run_tool


def raising(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(("given", "status"), [(None, 0), (0, 0), (3, 3)])
def test_the_status_is_that_of_main(given: int | None, status: int) -> None:
    assert run_tool(lambda: given) == status


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("folds: expected 2 or more, found 1"), 1, "error: folds: expected 2"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: [Errno 13] Permission denied: '/x'"),
    ],
)
def test_what_a_user_can_mend_is_told_in_a_line(error, status, said, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MAMBA_VISION_TRACEBACK", raising=False)
    assert run_tool(raising(error)) == status
    found = capsys.readouterr().err
    assert said in found and "Traceback" not in found


def test_what_data_sets_assert_is_told_in_a_line(tmp_path, capsys, monkeypatch) -> None:
    from mmpretrain.datasets import ImageNet

    monkeypatch.delenv("MAMBA_VISION_TRACEBACK", raising=False)
    (tmp_path / "train" / "n01440764").mkdir(parents=True)
    (tmp_path / "train" / "n01440764" / "fish.JPEG").touch()
    assert run_tool(lambda: ImageNet(str(tmp_path), split="train")) == 1
    assert "error: The number of subfolders (1) doesn't match" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        run_tool(raising(AssertionError("a bug")))


def test_bugs_and_asked_for_tracebacks_come_through(monkeypatch) -> None:
    with pytest.raises(RuntimeError):
        run_tool(raising(RuntimeError("a bug")))
    monkeypatch.setenv("MAMBA_VISION_TRACEBACK", "1")
    with pytest.raises(ValueError):
        run_tool(raising(ValueError("x")))
