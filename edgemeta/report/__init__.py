"""What a run tells its user: terminal tables, and one self-contained page."""
