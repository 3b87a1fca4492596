"""The report of a study: one HTML file, and the verdict table for a terminal."""

from experiments.report.page import write_report
from experiments.report.tables import verdict_table

__all__ = ["verdict_table", "write_report"]
