"""How a release is served: its script, its gates, the order of hosts, what is removed later."""
