"""What is below the service: packages, disks, docker's settings, SELinux."""
