#!/bin/bash
#SBATCH --job-name=pellucid
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#
# One process for each GPU: `sbatch slurm.sh`. Where process 0 listens, how many there are and which is which JAX takes
# from SLURM. TERM, two minutes before the time is over, writes a checkpoint; submitted again with the same RUN, or
# requeued, the job goes on. RUN must lie on a disk that all nodes see.

RUN=${RUN:-$PWD/runs/fashion-$SLURM_JOB_ID}
if [ -e "$RUN/config.toml" ]; then
    what=(--resume "$RUN")
else
    what=(fashion-mnist --net alexnet-small --batch-size 1024 --epochs 20 --out "$RUN")
fi
srun --kill-on-bad-exit=1 pellucid train "${what[@]}" --distributed
