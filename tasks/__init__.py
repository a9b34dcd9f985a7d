"""Ready-made batch tasks, one file each. They use lowtide's public API alone: copy and change."""
