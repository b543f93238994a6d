"""Episodes on disk, sequences in memory, and the views that enforce what a method may see."""
