"""The hands of the SDK: each word's calls, over one channel with one person's keys."""
