"""The search: objectives, budgets, searchers, and the study that they share."""
