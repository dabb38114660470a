"""The lab mirror: everything a deploy fetches, served inside the lab network. A stand-in; nothing here reaches the internet."""
