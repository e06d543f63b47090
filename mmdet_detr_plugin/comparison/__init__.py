"""Comparing detectors under equal conditions."""
