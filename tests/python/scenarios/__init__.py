"""The scenarios whose histories must equal those of the Temporal server: one module for each entity."""

from . import activities, attributes, basics, children, edges, interleavings, runs, updates, workflow_tasks

__all__ = ["activities", "attributes", "basics", "children", "edges", "interleavings", "runs", "updates", "workflow_tasks"]
