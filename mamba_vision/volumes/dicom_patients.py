"""A folder a patient as archives export it: series in folders below, segments or contours among them."""

import os
from pathlib import Path

from mamba_vision.volumes.dicom import has_dicom, series_listing
from mamba_vision.volumes.dicom_kinds import labels_below
from mamba_vision.volumes.volume import SeveralSeriesError, VolumeError


def patient_series(folder: Path, series: str | None = None) -> Path | None:
    """The folder of the patient's series, in `folder` or below; None if there is none.

    Args:
        series: which one, where there are several: UID, number or description.

    Raises:
        VolumeError: series in several folders, and none or several of them chosen.
    """
    places = []
    for here, inner, _ in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if has_dicom(Path(here)):
            places.append(Path(here))
    if len(places) > 1:
        places = _chosen(folder, places, series)
    return places[0] if places else None


def patient_label(folder: Path) -> Path | None:
    """The patient's label: a DICOM-SEG, an RTSTRUCT or a label map; the folder itself, if there are several."""
    labels = labels_below(folder)
    return folder if len(labels) > 1 else next(iter(labels), None)


def _chosen(folder: Path, series_folders: list[Path], wanted: str | None) -> list[Path]:
    listed = [(place, names) for place in series_folders for names in series_listing(place)]
    text = "; ".join(
        f"{place.relative_to(folder)}: {uid} (number {number or '?'}, {description or 'no description'})"
        for place, (uid, number, description) in listed
    )
    if wanted is None:
        raise SeveralSeriesError(
            folder, f"{len(listed)} series of one patient: {text}", "one series",
            "Choose one by its UID, number or description (--series; series= in Python), or move the others away",
        )  # fmt: skip
    chosen = [place for place, names in listed if str(wanted) in names]
    if len(chosen) != 1:
        raise VolumeError(folder, f"{len(chosen)} series called {wanted!r} among: {text}", "exactly one")
    return chosen
