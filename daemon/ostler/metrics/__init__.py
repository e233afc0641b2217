"""What managers and drivers count and measure: counters, gauges and histograms by the conventions of Prometheus.

    families        what a metric and its series look like to those who read them
    metric_names    which names, labels and buckets are accepted
    instruments     `Counter`, `Gauge` and `Histogram`
    registry        `Metrics`, by which a manager declares them, and the metrics of all services
    reported        metrics of drivers that are counted in a process of their own
    text_format     the text format of Prometheus
    opentelemetry   the same metrics for OpenTelemetry; imported only when that is on

Nothing here sends or formats anything. It is imported when the first manager declares a metric, or somebody asks for
them.
"""
