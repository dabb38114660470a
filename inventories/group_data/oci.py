"""Settings of all hosts on OCI."""

# The login user of Oracle-provided Oracle Linux images, with passwordless sudo
ssh_user = "opc"
# A host that has just booted accepts connections only after a while.
ssh_connect_retries = 3
