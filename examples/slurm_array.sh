#!/bin/bash
# Trains 4,096 agents in 8 tasks of 512 seeds, with a GPU each; a task that is preempted is queued again and resumes.
#   sbatch examples/slurm_array.sh
# Afterwards one run folder for all: python -m ddpg_jax.merge runs/array/*:* --out runs/array/all
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=USR1@60
#SBATCH --open-mode=append
set -eu
per_task=512
first=$((SLURM_ARRAY_TASK_ID * per_task))
folder="runs/array/$first:$((first + per_task))"
if [ -e "$folder/config.json" ]; then options=(--resume "$folder"); else options=(--out "$folder"); fi
srun python -m ddpg_jax.run --seeds "$first:$((first + per_task))" "${options[@]}" "$@" ||
  { status=$?; [ "$status" -le 128 ] || scontrol requeue "$SLURM_JOB_ID"; exit "$status"; }
