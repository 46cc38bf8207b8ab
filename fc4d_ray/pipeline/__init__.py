"""The run itself: inputs, plan, runners, progress, report. The only room that imports Ray."""
