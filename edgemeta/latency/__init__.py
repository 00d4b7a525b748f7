"""Latency: measured on a device, predicted for any network of a space."""
