"""A load balancer: what a host of the group `front` runs, and how its members are found in the inventory."""
