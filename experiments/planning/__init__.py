"""What a study will cost and can detect, before it runs."""
