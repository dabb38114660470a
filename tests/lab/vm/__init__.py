"""A whole machine with a kernel of its own, and SELinux enforcing: docs/lab.md, "A whole machine"."""
