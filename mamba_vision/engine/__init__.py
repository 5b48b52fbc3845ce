from mamba_vision.engine.hooks import (
    AtomicCheckpointHook,
    FiniteLossHook,
    InterruptHook,
    ProgressHook,
    ProgressPlotHook,
    TrainingDivergedError,
    TrainingInterrupted,
    ValidationPictureHook,
    latest_checkpoint,
)
from mamba_vision.engine.loops import ResumableEpochLoop
from mamba_vision.engine.optim_wrapper import CpuAmpOptimWrapper, MambaOptimWrapperConstructor, undecayed_parameters

__all__ = [
    "AtomicCheckpointHook",
    "CpuAmpOptimWrapper",
    "FiniteLossHook",
    "InterruptHook",
    "MambaOptimWrapperConstructor",
    "ProgressHook",
    "ProgressPlotHook",
    "ResumableEpochLoop",
    "TrainingDivergedError",
    "TrainingInterrupted",
    "ValidationPictureHook",
    "latest_checkpoint",
    "undecayed_parameters",
]
