"""Which recorded cases there are of a published class: tests run every one that is in the folder."""

import json
import re
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def recorded(system: str, *classes: str, without: tuple[str, ...] = ()) -> list[str]:
    """Names of the cases of a system whose published class, without its file, is one of these, sorted.

    Args:
        without: words in the names of cases that are fed in another way.
    """
    found = []
    for file in sorted((GOLDEN / system).glob("*.json")):
        said = re.sub(r" \([^)]*\)", "", json.loads(file.read_text())["source"]["class"])  # 'model_zigma.ZigMa (note)'
        published = re.split(r"[ .]", said)[-1]
        if published in classes and not any(word in file.stem for word in without):
            found.append(file.stem)
    return found
