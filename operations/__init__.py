"""The stages that bring a host from bare to serving, one module a stage, in deploy.py's order."""
