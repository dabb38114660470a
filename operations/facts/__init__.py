"""Observe: facts about a host. They read and parse; they decide nothing and exit 0 on a bare host."""
