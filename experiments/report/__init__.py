"""The report of a study: one HTML file, its tables and figures as files, and the verdict table for a terminal."""

from experiments.report.export import write_tables
from experiments.report.figure_files import write_figures
from experiments.report.page import render, write_report
from experiments.report.tables import verdict_table

__all__ = ["render", "verdict_table", "write_figures", "write_report", "write_tables"]
