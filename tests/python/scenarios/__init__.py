"""The scenarios whose histories must equal those of the Temporal server: one module for each entity."""

from . import activities, basics

__all__ = ["activities", "basics"]
