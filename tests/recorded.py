"""Which recorded cases there are of a published class: tests run every one that is in the folder."""

import json
import re
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def recorded(system: str, *classes: str, only: str = "", without: tuple[str, ...] = ()) -> list[str]:
    """Names of the cases of a system whose published class, without its file, is one of these, sorted.

    Args:
        only: word that the case's name or its class's description must have.
        without: words, in either, of cases that are fed in another way.
    """
    found = []
    for file in sorted((GOLDEN / system).glob("*.json")):
        text = json.loads(file.read_text())["source"]["class"]  # 'model_zigma.ZigMa (note)', 'ERGAS(ratio=4)'
        said = re.sub(r" \([^)]*\)|; parameter .*|\(ratio=.*", "", text)
        words = f"{file.stem} {text}"
        if re.split(r"[ .]", said)[-1] in classes and only in words and not any(word in words for word in without):
            found.append(file.stem)
    return found
