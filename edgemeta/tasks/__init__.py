"""What a task looks like as numbers, and what follows from it: where to start, and whom to imitate."""
