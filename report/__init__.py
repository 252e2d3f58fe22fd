"""One self-contained HTML page of a run: tables, curves, and pictures with the worst mistakes first."""

from report.content import Card, Report, Result, SettingPage, Table
from report.curves import ClassCurves, Curve, measure_class
from report.page import render, write_report

__all__ = [
    "Card",
    "ClassCurves",
    "Curve",
    "Report",
    "Result",
    "SettingPage",
    "Table",
    "measure_class",
    "render",
    "write_report",
]
