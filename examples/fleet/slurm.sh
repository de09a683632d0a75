#!/bin/bash
# A build on SLURM: every step is a task of an array, stage after stage, in folders that all nodes see.
#
#   sbatch examples/fleet/slurm.sh fleet.toml
#
# The last command delivers: steps that are done are found, what is left (after a failure) is done there.
#SBATCH --job-name=edgellm-fleet
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --requeue
set -euo pipefail
manifest=$1

# Writes the steps into the work folder, which --dry-run does not; it ends with the first of them.
python examples/fleet/stages.py "$manifest" | while read -r work stage; do
  for digest in ${stage//,/ }; do
    srun --ntasks=1 --exclusive edgellm fleet step "$digest" --work "$work" &
  done
  wait # a step that fails is reported by the build below
done
edgellm fleet build "$manifest"
