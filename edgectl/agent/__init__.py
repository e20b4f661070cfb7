"""The on-device update agent."""
