"""Published protocols: how a claim about predictors or searchers is tested, on tables that the user names."""
