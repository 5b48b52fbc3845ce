"""Scans: reading, checking, planning, preparing, restoring and writing them. Knows no model."""

from mamba_vision.volumes.cache import CachedCase, build_cache, load_case
from mamba_vision.volumes.checks import Problem, check_case, check_scans, write_problems
from mamba_vision.volumes.fingerprint import Fingerprint
from mamba_vision.volumes.orientation import Geometry
from mamba_vision.volumes.plan import Plan
from mamba_vision.volumes.planning import make_plan, make_plans
from mamba_vision.volumes.preprocess import Case, preprocess
from mamba_vision.volumes.reading import read_label, read_volume
from mamba_vision.volumes.restore import restore_labels, restore_probabilities
from mamba_vision.volumes.scans import DatasetInfo, ScanFiles, find_scans, read_dataset_info
from mamba_vision.volumes.splits import load_splits, make_splits, save_splits
from mamba_vision.volumes.survey import Survey, survey
from mamba_vision.volumes.volume import Volume, VolumeError
from mamba_vision.volumes.writing import write_image, write_labels

__all__ = [
    "CachedCase",
    "Case",
    "DatasetInfo",
    "Fingerprint",
    "Geometry",
    "Plan",
    "Problem",
    "ScanFiles",
    "Survey",
    "Volume",
    "VolumeError",
    "build_cache",
    "check_case",
    "check_scans",
    "find_scans",
    "load_case",
    "load_splits",
    "make_plan",
    "make_plans",
    "make_splits",
    "preprocess",
    "read_dataset_info",
    "read_label",
    "read_volume",
    "restore_labels",
    "restore_probabilities",
    "save_splits",
    "survey",
    "write_image",
    "write_labels",
    "write_problems",
]
