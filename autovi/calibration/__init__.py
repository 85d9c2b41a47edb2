"""Simulation-based calibration: are the posteriors of a model right, over data that the model itself makes up?"""
