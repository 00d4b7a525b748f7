"""Search spaces: what can be built, and the one walk from an architecture to its operators."""
