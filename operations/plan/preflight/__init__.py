"""The verdicts on a host before anything is changed."""
