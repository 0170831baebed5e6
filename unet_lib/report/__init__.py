"""From an evaluation to a report: means, medians, intervals, Markdown, JSON, figures."""

from unet_lib.report.comparison import Comparison, compare, comparison_markdown
from unet_lib.report.summary import Summary, summarise
from unet_lib.report.writing import write_comparison, write_report

__all__ = [
    "Comparison",
    "Summary",
    "compare",
    "comparison_markdown",
    "summarise",
    "write_comparison",
    "write_report",
]
