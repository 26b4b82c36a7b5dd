"""Drift, outlier and adversarial detectors."""
