"""Posteriors of one model beside each other, whatever tool they are from."""
