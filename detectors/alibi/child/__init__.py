"""What runs in the process that holds a detector of alibi-detect: it needs alibi-detect and numpy, and not govern."""
