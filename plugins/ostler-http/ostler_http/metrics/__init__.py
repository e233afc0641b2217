"""The application `metrics`: all metrics of the daemon for Prometheus. It knows the contracts of `application` only."""
