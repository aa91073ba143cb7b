"""The scenarios whose histories must equal those of the Temporal server: one module for each entity."""

from . import activities, basics, workflow_tasks

__all__ = ["activities", "basics", "workflow_tasks"]
