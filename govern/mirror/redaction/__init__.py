"""What is taken out of a record before it leaves the pod's memory."""
