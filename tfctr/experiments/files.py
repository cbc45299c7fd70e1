"""What the files of one run of an experiment are called, beside the run itself."""

PLAN, RESULT, GROUPS = "plan.json", "result.json", "groups.npy"
WHOLE = {"figures": dict, "metrics": dict, "environment": dict, "history": list}  # what a result has, if the run has not failed
