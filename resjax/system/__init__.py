"""What stands under everything: files, processes, signals, messages; nothing here knows of networks."""
