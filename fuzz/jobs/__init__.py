"""Parts of the jobs: the plan, the engine process, failures, what is shown and scripted."""
