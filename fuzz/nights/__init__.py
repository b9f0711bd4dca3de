"""Parts of a night: its plan, former failures, promises, shards and what is printed."""
