# Parameters, gradients and optimizer states in parts over all processes (FSDP), for networks that a GPU can't hold.
# Name this file last in `_base_` and start with tools/dist_train.sh. Checkpoints are whole, as of any other training.
runner_type = "FlexibleRunner"
strategy = dict(
    type="mamba_vision.ShardedStrategy",
    model_wrapper=dict(
        type="MMFullyShardedDataParallel",
        use_orig_params=True,  # the optimizer's groups go by parameter
        auto_wrap_policy=dict(type="torch.distributed.fsdp.wrap.size_based_auto_wrap_policy", min_num_params=1_000_000),
    ),
    state_dict_cfg="full",
)
