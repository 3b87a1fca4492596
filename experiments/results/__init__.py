"""Studies and runs read back from disk, and tables made elsewhere."""
