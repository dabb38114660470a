"""Who reaches the server: the guard, firewalld, the gateway, the server's own flags."""
