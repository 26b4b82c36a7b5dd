"""Manifests of Seldon Core and KServe, read as they are, and the pipelines that watch what they serve, or do it."""

from govern.pipeline.manifests.manifest import Report
from govern.pipeline.manifests.read import read_manifests
from govern.pipeline.manifests.watch import watch
from govern.pipeline.manifests.whole import whole

__all__ = ["Report", "read_manifests", "watch", "whole"]
