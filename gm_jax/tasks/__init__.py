"""What one does with a trained model besides drawing from it: which class is this, and is it like the data at all?

Each task asks for no more than it needs of a model, a likelihood as a rule, and so serves every family that has one.
"""
