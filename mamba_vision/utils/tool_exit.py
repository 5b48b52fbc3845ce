"""How every tool ends: with an exit status, and a sentence in place of a traceback where the user can mend it."""

import os
import signal
import sys
from collections.abc import Callable


def run_tool(main: Callable[[], int | None]) -> int:
    """Run a tool's `main` and return its exit status.

    Ctrl-C, also while libraries are still being imported, ends in one line and 128 + the signal's number. Errors about
    arguments, files and folders (ValueError, OSError) that `main` lets through are told without a traceback, unless
    the variable MAMBA_VISION_TRACEBACK is set, and so are assertions of OpenMMLab's data sets, which are about the
    user's files; anything else is a bug and shows where it comes from.
    """
    try:
        return main() or 0
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # what the output went to, `head` say, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left for Python to flush
        return 141  # 128 + SIGPIPE
    except (ValueError, OSError, AssertionError) as error:
        ours = isinstance(error, AssertionError) and not _of_a_data_set(error)
        if ours or os.environ.get("MAMBA_VISION_TRACEBACK"):
            raise
        print(f"error: {error}\n(MAMBA_VISION_TRACEBACK=1 shows where it comes from)", file=sys.stderr)
        return 1


def _of_a_data_set(error: AssertionError) -> bool:
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    module = last.tb_frame.f_globals.get("__name__", "")
    return module.startswith(("mmpretrain.datasets.", "mmseg.datasets.", "mmengine.dataset."))
