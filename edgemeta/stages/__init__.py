"""The parts of `pipeline.py`: run folders, parts made from settings, candidates into bundles, what is told."""
