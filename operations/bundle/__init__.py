"""An air-gapped site: everything the hosts of an inventory fetch, in one directory, and the server that hands it out.

python -m operations.bundle make inventories/oci.py --output DIR --url http://10.0.0.5:8080     # where there is a network
python -m operations.bundle verify DIR
python -m operations.bundle serve DIR --listen 10.0.0.5:8080                                    # at the site
"""
