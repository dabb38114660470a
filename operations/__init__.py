"""The stages that bring a host from bare to serving, one module per stage, in deploy.py's order."""

import gc

# What was imported so far, pyinfra most of all, lives until the process ends. Each collection would walk all of it again:
# an eighth of the time that the imports of a run take.
gc.freeze()
