"""Where the runs of a study run: processes of this machine, a Ray cluster, or Slurm."""
