"""Packed training of many seeds of one autoencoder, and the scores of their codes.

Pure PyTorch and scikit-learn: nothing here knows of Ray, MLflow, files or studies.
"""
