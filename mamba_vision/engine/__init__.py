from mamba_vision.engine.direction_history import DirectionHistory
from mamba_vision.engine.hooks import (
    AtomicCheckpointHook,
    ComparisonHook,
    CudaGraphHook,
    DirectionSearchHook,
    FiniteLossHook,
    InterruptHook,
    ProgressHook,
    ProgressPlotHook,
    SamplePictureHook,
    ScheduleChangeHook,
    TrainingDivergedError,
    TrainingInterrupted,
    TrainingReportHook,
    ValidationPictureHook,
    latest_checkpoint,
)
from mamba_vision.engine.layer_decay import LayerDecayOptimWrapperConstructor
from mamba_vision.engine.loops import ResumableEpochLoop
from mamba_vision.engine.optim_wrapper import CpuAmpOptimWrapper, MambaOptimWrapperConstructor, undecayed_parameters
from mamba_vision.engine.restoration_optim import RestorerOptimWrapperConstructor
from mamba_vision.engine.sharded_optim import ShardedAmpOptimWrapper, ShardedOptimWrapper
from mamba_vision.engine.sharded_strategy import ShardedStrategy

__all__ = [
    "AtomicCheckpointHook",
    "ComparisonHook",
    "CpuAmpOptimWrapper",
    "CudaGraphHook",
    "DirectionHistory",
    "DirectionSearchHook",
    "FiniteLossHook",
    "InterruptHook",
    "LayerDecayOptimWrapperConstructor",
    "MambaOptimWrapperConstructor",
    "ProgressHook",
    "ProgressPlotHook",
    "RestorerOptimWrapperConstructor",
    "ResumableEpochLoop",
    "SamplePictureHook",
    "ScheduleChangeHook",
    "ShardedAmpOptimWrapper",
    "ShardedOptimWrapper",
    "ShardedStrategy",
    "TrainingDivergedError",
    "TrainingInterrupted",
    "TrainingReportHook",
    "ValidationPictureHook",
    "latest_checkpoint",
    "undecayed_parameters",
]
