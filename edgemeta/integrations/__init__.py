"""Bridges to other packages, for those who bring their own loop."""
