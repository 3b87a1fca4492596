"""`python -m experiments.bridges.verl`: the same as `grpolab-verl`."""

from experiments.bridges.verl.main import main

main()
