"""A release, and the hosts of an inventory, in the words of other engines. Pure: no host is asked."""
