"""What is common to hosts on OCI."""

# The login user of Oracle-provided Oracle Linux images, with passwordless sudo
ssh_user = "opc"
# A host that just booted accepts connections a little later.
ssh_connect_retries = 3
