"""The questions: command line, studies, statistics and reports."""
