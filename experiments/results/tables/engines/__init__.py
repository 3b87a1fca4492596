"""What trainers write, read: one file for each library, which turns its logs into lines of numbers by step."""
