"""What an operator writes about hosts: settings, hosts, groups, OCI."""
