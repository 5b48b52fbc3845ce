from mamba_vision.engine.direction_history import DirectionHistory
from mamba_vision.engine.hooks import (
    AtomicCheckpointHook,
    DirectionSearchHook,
    FiniteLossHook,
    InterruptHook,
    ProgressHook,
    ProgressPlotHook,
    SamplePictureHook,
    TrainingDivergedError,
    TrainingInterrupted,
    ValidationPictureHook,
    latest_checkpoint,
)
from mamba_vision.engine.loops import ResumableEpochLoop
from mamba_vision.engine.optim_wrapper import CpuAmpOptimWrapper, MambaOptimWrapperConstructor, undecayed_parameters
from mamba_vision.engine.restoration_optim import RestorerOptimWrapperConstructor

__all__ = [
    "AtomicCheckpointHook",
    "CpuAmpOptimWrapper",
    "DirectionHistory",
    "DirectionSearchHook",
    "FiniteLossHook",
    "InterruptHook",
    "MambaOptimWrapperConstructor",
    "ProgressHook",
    "ProgressPlotHook",
    "RestorerOptimWrapperConstructor",
    "ResumableEpochLoop",
    "SamplePictureHook",
    "TrainingDivergedError",
    "TrainingInterrupted",
    "ValidationPictureHook",
    "latest_checkpoint",
    "undecayed_parameters",
]
