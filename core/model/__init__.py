"""The policy: loading, adapters, packing, log-probabilities, optimizer, sharded weights."""
