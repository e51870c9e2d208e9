"""Population search: ask/tell, Pareto selection, journal, storage, executors. Knows neither torch nor a network."""
