"""A run on disk: whole files, plain data, integrity, lock and checkpoints."""
