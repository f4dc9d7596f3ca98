"""Leads: found, shown a demo and a video, and written to; n8n's workflows run beside it and call back."""
