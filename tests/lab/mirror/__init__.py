"""The lab mirror: everything that a deploy downloads, served inside the lab network. Nothing here reaches the internet."""
