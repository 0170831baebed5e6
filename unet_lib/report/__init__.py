"""From an evaluation to a report: means, medians, intervals, Markdown, JSON, figures."""

from unet_lib.metrics.intervals import Interval, group_bootstrap, share_interval
from unet_lib.report.comparison import Comparison, compare, comparison_markdown
from unet_lib.report.first_readme import (
    FIRST_README,
    auc_bound,
    first_readme_auc_bound,
    implied_prevalence,
)
from unet_lib.report.summary import (
    NormalSummary,
    PerImageSummary,
    PooledSummary,
    Summary,
    summarise,
)
from unet_lib.report.writing import write_comparison, write_report

__all__ = [
    "FIRST_README",
    "Comparison",
    "Interval",
    "NormalSummary",
    "PerImageSummary",
    "PooledSummary",
    "Summary",
    "auc_bound",
    "compare",
    "comparison_markdown",
    "first_readme_auc_bound",
    "group_bootstrap",
    "implied_prevalence",
    "share_interval",
    "summarise",
    "write_comparison",
    "write_report",
]
