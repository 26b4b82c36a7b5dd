"""Pipeline graphs: their specification, validation and topology."""

from govern.pipeline.errors import PipelineError, Problem
from govern.pipeline.load import load_pipelines
from govern.pipeline.spec import Pipeline
from govern.pipeline.topology import Plan, PlannedStep, plan

__all__ = ["Pipeline", "PipelineError", "Plan", "PlannedStep", "Problem", "load_pipelines", "plan"]
