"""What is watched: the host's own metrics, and what a site's Prometheus, Alertmanager and Grafana need to read them."""
