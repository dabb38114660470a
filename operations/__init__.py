"""The stages that bring a host from bare to serving, one module per stage, in deploy.py's order."""
