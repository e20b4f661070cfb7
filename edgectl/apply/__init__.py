"""Apply: run the steps of a plan, and nothing that is not in the plan."""
