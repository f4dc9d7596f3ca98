"""What a person does to deliveries and dead letters: every statement that moves one, beside the function that runs it.

The relay has a store of its own, relay/store, with what the data plane does; relay/model/delivery.py draws the arrows.
"""
