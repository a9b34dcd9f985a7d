"""`make demo`: the main job on real text, from nothing to a table of answers and money."""
