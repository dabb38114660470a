# Prints the hosts that a load balancer sends requests to. Input: SOCKET.

. ./haproxy.sh
members
