"""Codecs that are networks."""
