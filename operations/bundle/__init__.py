"""For air-gapped sites: everything that an inventory's hosts download, in one directory, and a server for it.

python -m operations.bundle make inventories/oci.py --output DIR --url http://10.0.0.5:8080     # where there is a network
python -m operations.bundle verify DIR
python -m operations.bundle serve DIR --listen 10.0.0.5:8080                                    # at the site
"""
