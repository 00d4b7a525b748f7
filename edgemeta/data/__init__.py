"""Data sets as compact arrays, and few-shot episodes drawn from them."""
