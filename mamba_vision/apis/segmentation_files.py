"""The files of one segmented case, in the forms that were asked for.

CASE.nii.gz, CASE.nrrd, CASE.mha    labels, in the grid of the scan
CASE.png, .bmp, .tif                the same, for a picture, in its own format
CASE_seg.dcm, CASE_rtstruct.dcm     the same as DICOM objects that refer to the scan's series
CASE_LABEL.stl, CASE_LABEL.ply      the surface of each label that was found
CASE_surface.gif                    all surfaces, turning
CASE_preview.png                    three orthogonal slices with the labels over them
CASE_probabilities.nii.gz           one volume a class
CASE_uncertainty.nii.gz             how undecided each voxel is, 0 to 1
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mamba_vision.apis.volume_inference import InferenceOptions
from mamba_vision.apis.volume_result import VolumeResult
from mamba_vision.visualization.surfaces import rotating_surface
from mamba_vision.visualization.volumes import label_colour
from mamba_vision.volumes.dicom_seg_writing import write_dicom_seg
from mamba_vision.volumes.pictures import picture_ending, write_picture_labels
from mamba_vision.volumes.rtstruct_writing import write_rtstruct
from mamba_vision.volumes.scans import ScanFiles
from mamba_vision.volumes.sitk_writing import write_sitk_labels
from mamba_vision.volumes.surfaces import label_surface, write_surface

FORMATS = ("nii.gz", "picture", "nrrd", "mha", "dicom-seg", "rtstruct", "stl")
SURFACES = ("ply", "gif")
_MOST_TRIANGLES = 25_000  # in a picture that turns: more takes long to draw and shows no more


@dataclass(frozen=True)
class SegmentOptions(InferenceOptions):
    """What can be chosen for a run: how scans are segmented (InferenceOptions), and what is written.

    Attributes:
        formats: of FORMATS, at least one.
        surfaces: of SURFACES.
        statistics: measure the labels.
        preview: draw a picture.
        compress: probabilities as .nii.gz, else as .nii, which is read and written several times faster.
        resume: leave cases alone that are finished with the same weights and options.

    Raises:
        ValueError: an unknown format, surface or way to segment, or no format at all.
    """

    formats: tuple[str, ...] = ("nii.gz",)
    surfaces: tuple[str, ...] = ()
    statistics: bool = True
    preview: bool = True
    compress: bool = True
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("formats", FORMATS), ("surfaces", SURFACES)):
            chosen = tuple(dict.fromkeys(getattr(self, name)))
            object.__setattr__(self, name, chosen)
            if unknown := [one for one in chosen if one not in allowed]:
                raise ValueError(f"{name}: expected some of {', '.join(allowed)}, found {', '.join(unknown)}")
        if not self.formats:
            raise ValueError(f"formats: expected at least one of {', '.join(FORMATS)}")

    def of_labels(self) -> dict[str, Any]:
        """Those on which the labels depend, as JSON keeps them."""
        return {
            "tta": self.tta, "overlap": self.overlap, "amp": self.amp,
            "labels": None if self.labels is None else sorted(self.labels),
            "keep_largest": None if self.keep_largest is None else sorted(self.keep_largest),
        }  # fmt: skip

    def outputs(self) -> list[str]:
        """Kinds of files of a case."""
        kinds = [*self.formats, *self.surfaces]
        further = ("preview", "probabilities", "uncertainty")
        return kinds + [name for name in further if getattr(self, name)]


def write_case(result: VolumeResult, scan: ScanFiles, out: Path, options: SegmentOptions) -> list[str]:
    """Write the files of a case; label maps come last, so that where they are, all is.

    Args:
        result: the segmentation.
        scan: of which.
        out: the folder.
        options: what to write.

    Returns:
        Names of the files.
    """
    case, files = scan.case, []
    if options.probabilities:
        files.append(result.save_probabilities(out / f"{case}_probabilities.nii{'.gz' * options.compress}"))
    if options.uncertainty:
        files.append(result.save_uncertainty(out / f"{case}_uncertainty.nii.gz"))
    if options.preview:
        files.append(result.preview(out / f"{case}_preview.png"))
    kinds = [kind for kind in ("stl", "ply") if kind in (*options.formats, *options.surfaces)]
    files += _write_surfaces(result, case, out, kinds, "gif" in options.surfaces)
    arguments = (result.mask, result.volume, result.labels)
    writers = {
        "picture": lambda: write_picture_labels(out / f"{case}{picture_ending(scan.images[0])}", *arguments),
        "nrrd": lambda: write_sitk_labels(out / f"{case}.nrrd", *arguments),
        "mha": lambda: write_sitk_labels(out / f"{case}.mha", *arguments),
        "dicom-seg": lambda: write_dicom_seg(out / f"{case}_seg.dcm", *arguments, scan.series),
        "rtstruct": lambda: write_rtstruct(out / f"{case}_rtstruct.dcm", *arguments, scan.series, label_colour),
        "nii.gz": lambda: result.save(out / f"{case}.nii.gz"),
    }
    files += [write() for kind, write in writers.items() if kind in options.formats]
    return [file.name for file in files]


def _write_surfaces(result: VolumeResult, case: str, out: Path, kinds: list[str], turning: bool) -> list[Path]:
    files, shown = [], []
    for name, value in result.labels.items():
        if value == 0 or not (kinds or turning):
            continue
        surface = label_surface(result.mask, value, result.affine)
        if surface is None:
            continue
        safe = re.sub(r"[^\w.-]+", "_", name)
        files += [write_surface(out / f"{case}_{safe}.{kind}", surface, label_colour(value)) for kind in kinds]
        if turning:
            shown.append((name, value, surface))
    if shown:
        total = sum(len(surface.triangles) for _, _, surface in shown)
        step = max(1, round((total / _MOST_TRIANGLES) ** 0.5))
        coarse = []
        for name, value, surface in shown:
            if step > 1:
                surface = label_surface(result.mask, value, result.affine, step=step) or surface
            coarse.append((name, surface.points, surface.triangles, label_colour(value)))
        files.append(rotating_surface(coarse, out / f"{case}_surface.gif", title=case))
    return files
