"""Grafana dashboards as code, and the Prometheus rules."""
