"""alignbench's metrics for evaluate's own loader: ``evaluate.load("…/alignbench_metric.py", "distinct", draws=4)``."""

from alignbench.integrations.evaluate import metric_class

if not __name__.startswith("alignbench."):  # evaluate imports a copy by another name and looks for the class there
    AlignbenchMetric = metric_class()
