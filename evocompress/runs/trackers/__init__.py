"""Experiment trackers: a run's segments, its front and its hypervolume, logged where people look at all they do."""

from evocompress.runs.trackers.observer import Trackers
from evocompress.runs.trackers.tracker import TrackedFront, TrackedRun, TrackedSegment, Tracker

__all__ = ["TrackedFront", "TrackedRun", "TrackedSegment", "Tracker", "Trackers"]
