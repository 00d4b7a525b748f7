"""Torch networks built from an architecture's operators."""
