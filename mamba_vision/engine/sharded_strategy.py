"""MMEngine's FSDP strategy, with resuming that today's PyTorch takes."""

from mmengine._strategy import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from mamba_vision.registry import STRATEGIES


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """FSDPStrategy; its optimizer states are loaded by name of argument, whose order PyTorch has changed."""

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what `optim_state_dict` gave, whatever number of processes gave it."""
        own = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(own)
