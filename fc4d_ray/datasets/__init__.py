"""From a run to a dataset: choose avatars by their figures, export them with a card."""
