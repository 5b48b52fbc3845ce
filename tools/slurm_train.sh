#!/usr/bin/env bash
# Train under Slurm: GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=12 bash tools/slurm_train.sh PARTITION JOB CONFIG [arguments]
# Slurm starts one torchrun on each machine, which starts a process for each GPU. SRUN_ARGS goes to srun as it is.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: bash tools/slurm_train.sh PARTITION JOB CONFIG [arguments of tools/train.py]" >&2
  exit 2
fi
PARTITION=$1
JOB=$2
CONFIG=$3
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
NODES=$(((GPUS + GPUS_PER_NODE - 1) / GPUS_PER_NODE))
PORT=${PORT:-29500}
TRAIN="$(cd "$(dirname "$0")" && pwd)/train.py"
# --signal: Slurm sends SIGTERM two minutes before the time is over, which saves a checkpoint to --resume from.
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
srun -p "$PARTITION" --job-name="$JOB" --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 \
  --gres=gpu:"$GPUS_PER_NODE" --cpus-per-task=$((${CPUS_PER_TASK:-8} * GPUS_PER_NODE)) \
  --kill-on-bad-exit=1 --signal=TERM@120 ${SRUN_ARGS:-} \
  bash -c 'exec python -m torch.distributed.run --nnodes="$SLURM_NNODES" --node_rank="$SLURM_NODEID" \
    --master_addr="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" --master_port="$0" \
    --nproc_per_node="$1" "$2" "$3" --launcher pytorch "${@:4}"' \
  "$PORT" "$GPUS_PER_NODE" "$TRAIN" "$CONFIG" "${@:4}"
