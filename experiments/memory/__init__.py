"""What memory a run takes, from its configuration alone, and what it took."""
