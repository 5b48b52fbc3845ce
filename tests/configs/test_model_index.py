"""model-index.yml names every system's metafile, and what the metafiles name exists."""

from pathlib import Path

import pytest
import yaml

from mamba_vision.utils.paths import project_folder

CONFIGS = project_folder("configs")
METAFILES = sorted(CONFIGS.glob("*/metafile.yml"))


def test_every_metafile_is_listed() -> None:
    index = Path(__file__).resolve().parents[2] / "model-index.yml"
    if not index.is_file():
        pytest.skip("reads the index of a clone")
    listed = yaml.safe_load(index.read_text())["Import"]
    assert listed == [f"configs/{file.parent.name}/metafile.yml" for file in METAFILES]


@pytest.mark.parametrize("file", METAFILES, ids=lambda file: file.parent.name)
def test_what_a_metafile_names_exists(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    collections = {collection["Name"] for collection in content["Collections"]}
    names = [model["Name"] for model in content["Models"]]
    assert len(names) == len(set(names))
    for model in content["Models"]:
        assert model["In Collection"] in collections, model["Name"]
        assert (CONFIGS.parent / model["Config"]).is_file(), model["Config"]
    listed = {Path(model["Config"]).name for model in content["Models"]}
    assert {config.name for config in file.parent.glob("*.py")} == listed
